//! Operands that do not fit are refused with their shapes; nothing panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use runner_nn::{Attention, Backend, Cpu, Dfdx, Epilogue, Error, Patches};

fn backend() -> Dfdx<Cpu> {
    Dfdx::inference(1).unwrap()
}

#[test]
fn a_parameter_of_another_size_is_named() {
    let error = backend().weight("visual.proj", 2, 3, vec![0.0; 5]).err().unwrap();
    assert_eq!(error.to_string(), "tensor `visual.proj` has 5 values, expected 2 × 3");
}

#[test]
fn a_linear_map_refuses_another_width() {
    let b = backend();
    let weight = b.weight("w", 2, 3, vec![0.0; 6]).unwrap();
    let x = b.tensor(1, 4, vec![0.0; 4]).unwrap();
    let error = b.linear(&x, &weight, Epilogue::NONE).err().unwrap();
    assert_eq!(error.to_string(), "linear: width of the input is 4, expected 3");
}

#[test]
fn indices_out_of_range_are_refused() {
    let b = backend();
    let table = b.param("t", 3, 2, vec![0.0; 6]).unwrap();
    assert_eq!(b.embed(&table, &[0, 3]).err(), Some(Error::Index { operation: "embedding", index: 3, rows: 3 }));
    let x = b.tensor(2, 2, vec![0.0; 4]).unwrap();
    assert_eq!(b.rows(&x, &[2]).err(), Some(Error::Index { operation: "rows", index: 2, rows: 2 }));
    assert_eq!(
        b.add_positions(&b.tensor(4, 2, vec![0.0; 8]).unwrap(), 1, None, &table).err(),
        Some(Error::Index { operation: "positions", index: 3, rows: 3 })
    );
}

#[test]
fn zero_sizes_are_refused() {
    let b = backend();
    let x = b.tensor(2, 6, vec![0.0; 12]).unwrap();
    for attention in [(0, 1), (3, 1), (1, 0), (1, 3)] {
        let (tokens, heads) = attention;
        assert!(b.attention(&x, Attention { tokens, heads, causal: true }).is_err(), "{attention:?}");
    }
    let weight = b.weight("w", 1, 1, vec![0.0]).unwrap();
    let patches = Patches { channels: 1, height: 4, width: 4, size: 0 };
    assert!(b.patch_embed(&[0.0; 16], patches, &weight, None).is_err());
    assert!(b.param("p", 0, 4, Vec::new()).is_err());
    assert!(b.tensor(3, 0, Vec::new()).is_err());
}

#[test]
fn empty_batches_give_empty_results() {
    let b = backend();
    let x = b.tensor(0, 2, Vec::new()).unwrap();
    let weight = b.weight("w", 3, 2, vec![0.0; 6]).unwrap();
    let y = b.linear(&x, &weight, Epilogue::NONE).unwrap();
    assert_eq!(b.shape(&y), (0, 3));
    let attention = Attention { tokens: 4, heads: 1, causal: false };
    assert_eq!(b.shape(&b.transformer(&x, &[], attention, Default::default()).unwrap()), (0, 2));
    assert_eq!(b.shape(&b.l2_normalize(&x).unwrap()), (0, 2));
}
