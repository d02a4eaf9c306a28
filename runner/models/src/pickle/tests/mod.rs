//! Files that are honest, and files that are not: these are refused with their reason, in bounded time and memory.

mod write;

use proptest::prelude::*;
use write::{Entry, Pickle, archive, zip};

use super::{Checkpoint, legacy::MAGIC};
use crate::blob::Blob;

fn open(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    Checkpoint::new(Blob::from_bytes("m.pt", bytes)).map_err(|error| error.to_string())
}

/// Why a file is refused.
fn refused(bytes: Vec<u8>) -> String {
    match open(bytes) {
        Ok(checkpoint) => panic!("opened: {:?}", checkpoint.names().collect::<Vec<_>>()),
        Err(message) => message,
    }
}

/// Why an archive of this pickle and a storage of eight numbers is refused.
fn pickle_refused(pickle: Vec<u8>) -> String {
    refused(archive(pickle, &numbers(8)))
}

/// So many numbers, counted from 0.
fn numbers(count: u8) -> Vec<u8> {
    (0..count).flat_map(|value| f32::from(value).to_le_bytes()).collect()
}

fn tensor(held: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    Pickle::new().state(|it| it.tensor(held, offset, shape, strides)).end()
}

#[test]
fn a_state_dict_is_read_with_any_strides() {
    for bytes in [archive(tensor(8, 1, &[2, 3], &[1, 2]), &numbers(8)), {
        let pickle = tensor(8, 1, &[2, 3], &[1, 2]);
        zip(&[Entry::deflated("a/b/data/0", &numbers(8)), Entry::deflated("a/b/data.pkl", &pickle)])
    }] {
        let checkpoint = open(bytes).unwrap();
        assert_eq!(checkpoint.shape("w"), Some(&[2, 3][..]));
        assert_eq!(checkpoint.values("w").unwrap(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }
}

#[test]
fn big_endian_numbers_are_turned() {
    let swapped: Vec<u8> = numbers(2).chunks(4).flat_map(|number| number.iter().rev().copied()).collect();
    let pickle = tensor(2, 0, &[2], &[1]);
    let entries = [("data.pkl", pickle.as_slice()), ("byteorder", b"big"), ("data/0", &swapped)];
    let checkpoint = open(zip(&entries.map(|(name, content)| Entry::stored(&format!("x/{name}"), content)))).unwrap();
    assert_eq!(checkpoint.values("w").unwrap(), [0.0, 1.0]);
}

#[test]
fn the_state_dict_of_a_training_checkpoint_is_found_and_its_prefix_taken_off() {
    let inner = |it: Pickle| it.op(b"}").text("module.w").tensor(8, 0, &[8], &[1]).op(b"s");
    let pickle = inner(Pickle::new().op(b"}").text("epoch").int(3).op(b"s").text("state_dict")).op(b"s").end();
    assert_eq!(open(archive(pickle, &numbers(8))).unwrap().names().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn what_would_run_something_is_refused_by_name() {
    let calls = Pickle::new().global("os", "system").tuple(|it| it.text("touch /tmp/x")).op(b"R");
    assert_eq!(
        pickle_refused(calls.clone().end()),
        "m.pt: refused: its pickle asks for `os.system`, and only tensors are read from a pickle; nothing of it was run"
    );
    // A bare pickle, without an archive.
    assert!(refused(calls.end()).contains("`os.system`"));
    let stacked = Pickle::new().text("builtins").text("eval").op(&[0x93]);
    assert!(pickle_refused(stacked.end()).contains("`builtins.eval`"));
    assert!(pickle_refused(Pickle::new().op(b"(iposix\nsystem\n").end()).contains("`posix.system`"));
    assert!(pickle_refused(Pickle::new().op(&[0x82, 1]).end()).contains("extension registry"));
    assert!(pickle_refused(Pickle::new().global("torch.nn.modules.linear", "Linear").end()).contains("linear.Linear"));
    // Beside honest tensors, too.
    let beside = Pickle::new().state(|it| it.tensor(8, 0, &[8], &[1])).text("x").global("subprocess", "Popen").op(b"s");
    assert!(pickle_refused(beside.end()).contains("`subprocess.Popen`"));
    // A name that would clear a terminal.
    assert!(pickle_refused(Pickle::new().global("\u{1b}[2J", "x").end()).contains("\\u{1b}[2J.x"));
}

#[test]
fn tensors_that_leave_their_storage_are_refused() {
    for (held, offset, shape, strides) in [
        (8, 0, &[9][..], &[1][..]),
        (8, 1, &[8], &[1]),
        (8, 0, &[2, 2], &[7, 2]),
        (8, 0, &[1 << 60], &[1]),
        (8, 0, &[1 << 31, 1 << 31, 4], &[0, 0, 0]),
        (8, 0, &[1 << 30], &[0]),
        (8, 0, &[2], &[i64::MAX]),
        (8, i64::MAX, &[1], &[1]),
        (8, 0, &[8], &[]),
    ] {
        let message = pickle_refused(tensor(held, offset, shape, strides));
        assert!(message.contains("storage `0`, which has 8 elements"), "{shape:?} {strides:?}: {message}");
    }
    assert!(pickle_refused(tensor(8, 0, &[-1], &[1])).contains("negative"));
    assert!(pickle_refused(tensor(8, -1, &[1], &[1])).contains("negative"));
    assert!(pickle_refused(tensor(8, 0, &[1; 17], &[1; 17])).contains("without offset, shape and strides"));
    // More elements than the file has bytes, as the pickle tells of them; and more than can be counted.
    assert_eq!(
        pickle_refused(tensor(1 << 40, 0, &[1 << 40], &[1])),
        "m.pt: tensor `w`: its storage `0` has only 32 bytes"
    );
    assert!(pickle_refused(tensor(i64::MAX, 0, &[1], &[1])).contains("9223372036854775807 elements"));
}

#[test]
fn storages_must_be_in_the_file_and_described_once() {
    let pickle = tensor(8, 0, &[8], &[1]);
    assert_eq!(
        refused(zip(&[Entry::stored("a/data.pkl", &pickle)])),
        "m.pt: tensor `w`: its storage `0` is not in the file"
    );
    let twice = Pickle::new().op(b"}").text("a").tensor(8, 0, &[8], &[1]).op(b"s").text("b").tensor(4, 0, &[4], &[1]);
    assert!(pickle_refused(twice.op(b"s").end()).contains("storage `0` is described in two ways"));
    let key = "../../etc/passwd";
    let outside = Pickle::new().state(|it| {
        it.global("torch._utils", "_rebuild_tensor_v2")
            .tuple(|it| it.storage("FloatStorage", key, 8).int(0).ints(&[8]).ints(&[1]))
            .op(b"R")
    });
    assert!(pickle_refused(outside.end()).contains("is not in the file"));
}

#[test]
fn tensors_that_all_share_one_storage_take_no_more_memory_than_it() {
    let mut pickle = Pickle::new().op(b"}");
    for i in 0..64 {
        pickle = pickle.text(&i.to_string()).tensor(1 << 16, 0, &[1 << 16], &[1]).op(b"s");
    }
    assert!(refused(archive(pickle.end(), &vec![0; 4 << 16])).contains("too many share one storage"));
}

#[test]
fn archives_with_names_that_lead_out_are_refused() {
    let honest = Entry::stored("a/data.pkl", &tensor(8, 0, &[8], &[1]));
    for name in ["../x", "/etc/passwd", "a/../../x", "C:\\x", "a\\..\\x", "a/\0"] {
        let message = refused(zip(&[honest.clone(), Entry::stored(name, b"")]));
        assert!(message.contains("leads out of the archive"), "{message}");
    }
    let message = refused(zip(&[honest.clone(), honest.clone()]));
    assert_eq!(message, "m.pt: entry `a/data.pkl`: stands twice in the archive");
    assert!(
        refused(zip(&[honest.clone(), Entry { name: "b/data.pkl".into(), ..honest.clone() }])).contains("otherwise")
    );
    let two = [honest.clone(), Entry::stored("b/data.pkl", b".")];
    assert!(refused(zip(&two)).contains("two data.pkl"));
    assert!(refused(zip(&[Entry::stored("a/b", b"")])).contains("without data.pkl"));
    let message = refused(zip(&[Entry { local_name: "a/other.pk".into(), ..honest }]));
    assert!(message.contains("is called otherwise where it stands"), "{message}");
}

#[test]
fn archives_that_lie_about_sizes_and_places_are_refused() {
    let pickle = Entry::stored("a/data.pkl", &tensor(8, 0, &[8], &[1]));
    let storage = Entry::stored("a/data/0", &numbers(8));
    let with = |entry: Entry| refused(zip(&[pickle.clone(), entry]));
    assert!(with(Entry { size: 1 << 30, ..storage.clone() }).contains("stored in another size than its own"));
    for place in [1 << 30, u32::MAX] {
        assert!(with(Entry { place: Some(place), ..storage.clone() }).contains("is not in the archive"));
    }
    assert!(with(Entry { place: Some(0), name: "a/data.pkl2".into(), ..storage }).contains("is called otherwise"));
    // An entry inside another one: its header is the other's content.
    let inner = Entry::stored("a/y", &numbers(8));
    let outer = Entry::stored("a/x", &zip(std::slice::from_ref(&inner)));
    let place = Some(30 + 3);
    assert!(refused(zip(&[outer, Entry { place, ..inner }, pickle.clone()])).contains("lie over each other"));
    // What unpacks to less than it says is found when it is read.
    let short = Entry { size: 32, ..Entry::deflated("a/data/0", &numbers(4)) };
    let checkpoint = open(zip(&[pickle.clone(), short])).unwrap();
    assert!(checkpoint.values("w").unwrap_err().to_string().contains("unpacks to less than its size"));
    // A bomb: 64 MB of zeros in 64 KB.
    let bomb = Entry::deflated("a/data/0", &vec![0; 64 << 20]);
    assert!(refused(zip(&[pickle.clone(), bomb])).contains("a zip bomb"));
    let whole = zip(&[pickle]);
    assert!(refused(whole[..whole.len() - 5].to_vec()).contains("cut off"));
    assert!(refused(b"PK\x03\x04".to_vec()).contains("cut off"));
}

#[test]
fn bombs_of_values_are_refused() {
    // Ten million empty lists.
    assert!(pickle_refused(Pickle::new().op(&vec![b']'; 10_000_000]).end()).contains("more than 2097152 values"));
    assert!(pickle_refused(Pickle::new().op(&vec![b'('; 10_000_000]).end()).contains("more than 2097152 values"));
    assert!(pickle_refused(Pickle::new().op(b"]").op(&vec![b'2'; 10_000_000]).end()).contains("values"));
    let memo = Pickle::new().op(b"]").op(&vec![0x94; 10_000_000]);
    // MEMOIZE counts its own entries, so that each is new.
    assert!(pickle_refused(memo.end()).contains("more than 2097152 values"));
    // A text of four gigabytes that is not there.
    assert!(pickle_refused(Pickle::new().op(b"X\xff\xff\xff\xff").end()).contains("more than 32 MiB"));
    assert!(pickle_refused(Pickle::new().op(b"X\xff\xff\xff\x00").end()).contains("ends early"));
}

#[test]
fn modules_inside_themselves_end() {
    // A list that holds itself, and a module that is its own part.
    let own = Pickle::new().op(b"]q\x00h\x00a");
    assert!(pickle_refused(own.end()).contains("expected a state dict"));
    let module = Pickle::new().global("__torch__", "M").op(b")\x81q\x01}").text("self").op(b"h\x01sb");
    assert!(pickle_refused(module.end()).contains("modules inside modules without end"));
    // Each module holds the next one twice: two to the power of thirty in all.
    let mut doubled = Pickle::new().global("__torch__", "M").op(b")\x81q\x00");
    for i in 0..30u8 {
        let next = [b'q', i + 1];
        doubled = doubled.global("__torch__", "M").op(b")\x81").op(&next).op(b"}").text("a").op(&[b'h', i]).op(b"s");
        doubled = doubled.text("b").op(&[b'h', i]).op(b"sb");
    }
    assert!(pickle_refused(doubled.end()).contains("modules inside modules without end"));
    // A dictionary made of a long list, over and over.
    let mut copies = Pickle::new().op(b"](");
    for _ in 0..100_000 {
        copies = copies.op(b"N");
    }
    copies = copies.op(b"e\x85q\x00");
    for _ in 0..1000 {
        copies = copies.global("collections", "OrderedDict").op(b"h\x00R");
    }
    assert!(pickle_refused(copies.end()).contains("copied over and over"));
}

#[test]
fn damaged_pickles_are_refused() {
    for (bytes, problem) in [
        (&b"\x80\x02."[..], "empty stack"),
        (b"\x80\x02)R.", "empty stack"),
        (b"\x80\x02(0.", "empty stack"),
        (b"\x80\x02t.", "a mark that nobody set"),
        (b"\x80\x02h\x05.", "value 5 is recalled"),
        (b"\x80\x09.", "pickle protocol 9"),
        (b"\x80\x02\xff.", "opcode 0xff"),
        (b"\x80\x02}K\x01a.", "no list"),
        (b"\x80\x02}", "ends early"),
        (b"\x80\x02}.", "no tensors with names"),
        (b"\x80\x02K\x01K\x02R.", "no function"),
    ] {
        let message = pickle_refused(bytes.to_vec());
        assert!(message.contains(problem), "{message}");
    }
}

/// A file of PyTorch's old format.
fn old(pickle: Vec<u8>, length: u64, storage: &[u8]) -> Vec<u8> {
    let mut bytes = Pickle::new().op(&[0x8A, 10]).op(&MAGIC).end();
    bytes.extend(Pickle::new().op(b"M\xe9\x03").end());
    bytes.extend(Pickle::new().op(b"}").text("little_endian").op(&[0x88]).op(b"s").end());
    bytes.extend(pickle);
    bytes.extend(Pickle::new().op(b"]").text("0").op(b"a").end());
    bytes.extend(length.to_le_bytes());
    bytes.extend(storage);
    bytes
}

#[test]
fn old_files_are_read_and_checked() {
    let pickle = tensor(8, 2, &[3], &[2]);
    assert_eq!(open(old(pickle.clone(), 8, &numbers(8))).unwrap().values("w").unwrap(), [2.0, 4.0, 6.0]);
    assert!(refused(old(pickle.clone(), 9, &numbers(8))).contains("storage `0`: expected 8 elements, found 9"));
    assert!(refused(old(pickle.clone(), 8, &numbers(7))).contains("its 32 bytes are not in the file"));
    let calls = Pickle::new().global("os", "system").end();
    assert!(refused(old(calls, 8, &numbers(8))).contains("`os.system`"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(refused(tar).contains("a tar archive, PyTorch's format before 0.1.10"));
    assert!(refused(b"hello".to_vec()).contains("not a file of PyTorch"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = open(bytes.clone());
        let _ = open([&b"\x80\x02"[..], &bytes].concat());
        let _ = open(archive([&b"\x80\x02"[..], &bytes].concat(), &bytes));
        let _ = open(old([&b"\x80\x02"[..], &bytes].concat(), 1, &bytes));
    }

    #[test]
    fn damage_is_refused_or_read_but_never_panics(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let pickle = Pickle::new().state(|it| it.tensor(8, 1, &[2, 3], &[1, 2])).end();
        for mut bytes in [archive(pickle.clone(), &numbers(8)), old(pickle, 8, &numbers(8))] {
            for (place, value) in &damage {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            if let Ok(checkpoint) = open(bytes) {
                let names: Vec<_> = checkpoint.names().map(str::to_owned).collect();
                for name in names {
                    if let Ok(values) = checkpoint.values(&name) {
                        prop_assert_eq!(values.len(), checkpoint.shape(&name).unwrap().iter().product::<usize>());
                    }
                }
            }
        }
    }

    #[test]
    fn any_view_reads_what_its_strides_say(shape in proptest::collection::vec(1usize..4, 0..4), seed: u64) {
        // Dimensions in a random order of strides, with gaps.
        let mut order: Vec<usize> = (0..shape.len()).collect();
        order.sort_by_key(|i| seed.rotate_left(*i as u32 * 7) % 5);
        let (mut strides, mut step) = (vec![0i64; shape.len()], 1i64);
        for i in order {
            strides[i] = step;
            step *= shape[i] as i64 + (seed % 2) as i64;
        }
        let held = u8::try_from(step + 3).unwrap_or(255);
        prop_assume!(i64::from(held) == step + 3);
        let dims: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let checkpoint = open(archive(tensor(held.into(), 3, &dims, &strides), &numbers(held))).unwrap();
        let count: usize = shape.iter().product();
        let expected: Vec<f32> = (0..count)
            .map(|mut at| {
                let mut place = 3;
                for (&n, &stride) in shape.iter().zip(&strides).rev() {
                    place += (at % n) as i64 * stride;
                    at /= n;
                }
                place as f32
            })
            .collect();
        prop_assert_eq!(checkpoint.values("w").unwrap(), expected);
    }
}
