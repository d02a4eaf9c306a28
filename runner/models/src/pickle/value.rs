//! What a pickle of tensors is made of, and which names it may use.

use std::sync::Arc;

use crate::pickle::Problem;

/// A value in the machine's arena. Values refer to each other by these, so that nothing is copied and cycles do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// A dictionary, ordered or not; a key that comes twice stands twice.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A stretch of a storage, in elements.
    Storage {
        storage: usize,
        start: u64,
        length: u64,
    },
    Tensor(Arc<TensorView>),
    /// A TorchScript module: its class, and the dictionary of its attributes.
    Module {
        class: Arc<str>,
        state: Option<Id>,
    },
    /// What no tensor is made of: numbers of optimizers, devices, sets. Parsed and left.
    Inert,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorView {
    /// Which storage of the file.
    pub(super) storage: usize,
    pub(super) element: Element,
    /// The first element, counted from the start of the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    /// The distance of neighbours along each dimension, in elements.
    pub(super) strides: Vec<u64>,
}

/// The format of a storage's elements: PyTorch's name and the size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: &'static str,
    pub(super) size: u64,
}

const fn element(name: &'static str, size: u64) -> Element {
    Element { name, size }
}

/// Storage classes, and what `torch.dtype` calls their elements.
const STORAGES: &[(&str, Element)] = &[
    ("FloatStorage", element("float32", 4)),
    ("HalfStorage", element("float16", 2)),
    ("BFloat16Storage", element("bfloat16", 2)),
    ("DoubleStorage", element("float64", 8)),
    ("LongStorage", element("int64", 8)),
    ("IntStorage", element("int32", 4)),
    ("ShortStorage", element("int16", 2)),
    ("CharStorage", element("int8", 1)),
    ("ByteStorage", element("uint8", 1)),
    ("BoolStorage", element("bool", 1)),
    ("ComplexFloatStorage", element("complex64", 8)),
    ("ComplexDoubleStorage", element("complex128", 16)),
    ("UntypedStorage", element("bytes", 1)),
];

/// Elements that have a `torch.dtype` and no storage class of their own.
const MORE: &[Element] = &[
    element("uint16", 2),
    element("uint32", 4),
    element("uint64", 8),
    element("float8_e4m3fn", 1),
    element("float8_e5m2", 1),
];

/// A name that a pickle may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict` and its like.
    Dict,
    /// `torch._utils._rebuild_tensor`, `_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`: the number format is an argument.
    RebuildTypedTensor,
    /// `torch._utils._rebuild_parameter` and its like: the first argument, which is a tensor.
    RebuildParameter,
    Storage(Element),
    Dtype(Element),
    /// A TorchScript class.
    Module(Arc<str>),
    /// A function or class whose result is left.
    Inert,
}

impl Global {
    /// The name `module.name`, if it is one of those that make tensors.
    pub(super) fn named(module: &str, name: &str) -> Result<Self, Problem> {
        let storage = || STORAGES.iter().find(|(class, _)| *class == name).map(|(_, element)| Self::Storage(*element));
        let dtype = || {
            let all = STORAGES.iter().map(|(_, element)| element).chain(MORE);
            all.filter(|element| element.name != "bytes").find(|element| element.name == name).map(|e| Self::Dtype(*e))
        };
        let found = match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Some(Self::Dict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::RebuildTypedTensor),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch.nn.parameter", "Parameter" | "Buffer") => Some(Self::RebuildParameter),
            ("torch", "Size" | "device")
            | (
                "builtins" | "__builtin__",
                "set" | "frozenset" | "dict" | "list" | "tuple" | "int" | "float" | "bool",
            )
            // Bytes, as Python 3 writes them for Python 2.
            | ("_codecs", "encode")
            | ("torch.serialization", "_get_layout") => Some(Self::Inert),
            ("torch", _) => storage().or_else(dtype),
            ("torch.storage", _) => storage(),
            ("torch.jit._pickle", _) => Some(Self::Inert),
            _ if module == "__torch__" || module.starts_with("__torch__.") => {
                Some(Self::Module(format!("{module}.{name}").into()))
            }
            _ => None,
        };
        found.ok_or_else(|| Problem::Refused(format!("{module}.{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_tensors_has_a_name() {
        for (module, name) in [
            ("os", "system"),
            ("builtins", "eval"),
            ("__builtin__", "getattr"),
            ("torch", "load"),
            ("torch.storage", "_load_from_bytes"),
            ("torch._utils", "_rebuild_sparse_tensor"),
            ("torch.nn.modules.linear", "Linear"),
            ("__torch__x", "Module"),
            ("", ""),
        ] {
            let Err(Problem::Refused(found)) = Global::named(module, name) else {
                panic!("{module}.{name} is allowed")
            };
            assert_eq!(found, format!("{module}.{name}"));
        }
        assert_eq!(Global::named("torch", "HalfStorage").unwrap(), Global::Storage(element("float16", 2)));
        assert_eq!(Global::named("torch", "bfloat16").unwrap(), Global::Dtype(element("bfloat16", 2)));
    }
}
