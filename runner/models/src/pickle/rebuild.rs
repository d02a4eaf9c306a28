//! What the few functions that a pickle may name make of their arguments: storages, tensors, modules.

use std::sync::Arc;

use crate::pickle::{
    Problem,
    machine::{Machine, Storage, broken},
    value::{Global, Id, TensorView, Value},
};

/// Dimensions of a tensor.
const MAX_DIMENSIONS: usize = 16;
/// Tensors of a file, each time that they are made.
const MAX_TENSORS: usize = 1 << 18;
/// Items copied from lists into dictionaries.
const MAX_COPIED: usize = 4 << 20;
/// Bytes of a storage's name.
const MAX_KEY: usize = 256;

impl Machine {
    /// REDUCE and NEWOBJ: what the functions that are known make of their arguments.
    pub(super) fn call(&mut self, function: Id, arguments: Id) -> Result<(), Problem> {
        self.copied += self.copies(arguments);
        if self.copied > MAX_COPIED {
            return broken("lists are copied over and over");
        }
        let Value::Global(global) = self.get(function) else { return broken("what is called is no function") };
        let Value::Tuple(arguments) = self.get(arguments) else { return broken("arguments that are no tuple") };
        let value = match global {
            Global::Inert => Value::Inert,
            Global::Module(class) => Value::Module { class: class.clone(), state: None },
            Global::Dict => match arguments.first().map(|first| self.get(*first)) {
                Some(Value::List(items)) => Value::Dict(items.iter().filter_map(|item| self.pair(*item)).collect()),
                _ => Value::Dict(Vec::new()),
            },
            Global::RebuildTensor => self.tensor(arguments, None)?,
            Global::RebuildTypedTensor => self.tensor(arguments, Some(6))?,
            Global::RebuildParameter => match arguments.first().map(|first| self.get(*first)) {
                Some(Value::Tensor(tensor)) => Value::Tensor(tensor.clone()),
                _ => return broken("a parameter that is no tensor"),
            },
            Global::Storage(_) | Global::Dtype(_) => return broken("a storage outside the file"),
        };
        self.tensors += usize::from(matches!(value, Value::Tensor(_)));
        if self.tensors > MAX_TENSORS {
            return broken(format!("more than {MAX_TENSORS} tensors"));
        }
        self.push(value)
    }

    /// Items that a dictionary made of a list copies.
    fn copies(&self, arguments: Id) -> usize {
        let Value::Tuple(arguments) = self.get(arguments) else { return 0 };
        match arguments.first().map(|first| self.get(*first)) {
            Some(Value::List(items)) => items.len(),
            _ => 0,
        }
    }

    /// A key with its value, as a tuple or list of two.
    fn pair(&self, id: Id) -> Option<(Id, Id)> {
        match self.get(id) {
            Value::Tuple(pair) => pair.as_ref().try_into().ok().map(|[key, value]: [Id; 2]| (key, value)),
            Value::List(pair) => pair.as_slice().try_into().ok().map(|[key, value]: [Id; 2]| (key, value)),
            _ => None,
        }
    }

    /// BUILD: the state of a module. That of other values is not needed.
    pub(super) fn build(&mut self, new: Id) -> Result<(), Problem> {
        let object = self.top()?;
        match self.values.get_mut(object.0 as usize) {
            Some(Value::Module { state, .. }) => *state = Some(new),
            Some(Value::Dict(_) | Value::Tensor(_) | Value::Inert) => {}
            _ => return broken("a state for what has none"),
        }
        Ok(())
    }

    fn size(&self, id: Option<&Id>) -> Option<u64> {
        if let Value::Int(value) = self.get(*id?) { u64::try_from(*value).ok() } else { None }
    }

    fn sizes(&self, id: Option<&Id>) -> Option<Vec<u64>> {
        let items: &[Id] = match self.get(*id?) {
            Value::Tuple(items) => items,
            Value::List(items) => items,
            _ => return None,
        };
        if items.len() > MAX_DIMENSIONS { None } else { items.iter().map(|item| self.size(Some(item))).collect() }
    }

    /// BINPERSID: `('storage', class, key, location, length)`, in old files followed by `(key, start, length)` of a part or None.
    pub(super) fn storage(&mut self, id: Id) -> Result<(), Problem> {
        let Value::Tuple(items) = self.get(id) else { return broken("a reference to what is no storage") };
        let item = |i: usize| items.get(i).map(|id| self.get(*id));
        let (
            Some(Value::Text(kind)),
            Some(Value::Global(Global::Storage(element))),
            Some(Value::Text(key)),
            Some(length),
        ) = (item(0), item(1), item(2), self.size(items.get(4)))
        else {
            return broken("a reference to what is no storage");
        };
        if kind.as_ref() != "storage" || key.len() > MAX_KEY {
            return broken("a reference to what is no storage");
        }
        if length.checked_mul(element.size).is_none() {
            return broken(format!("storage `{key}`: {length} elements"));
        }
        let (start, part) = match item(5) {
            None | Some(Value::None) => (0, length),
            Some(Value::Tuple(view)) => match (self.size(view.get(1)), self.size(view.get(2))) {
                (Some(start), Some(part)) if start.checked_add(part).is_some_and(|end| end <= length) => (start, part),
                _ => return broken(format!("storage `{key}`: a part that leaves it")),
            },
            Some(_) => return broken(format!("storage `{key}`: a part that is none")),
        };
        let (element, key) = (*element, key.to_string());
        let storage = match self.keys.get(&key) {
            Some(&known) => {
                let old = &self.storages[known];
                if (old.element, old.length) != (element, length) {
                    return broken(format!("storage `{key}` is described in two ways"));
                }
                known
            }
            None => {
                self.keys.insert(key.clone(), self.storages.len());
                self.storages.push(Storage { key, element, length });
                self.storages.len() - 1
            }
        };
        self.push(Value::Storage { storage, start, length: part })
    }

    /// `(storage, offset, shape, strides, …)`; `dtype` is the place of the number format, where it is not the storage's.
    fn tensor(&self, arguments: &[Id], dtype: Option<usize>) -> Result<Value, Problem> {
        let Some(&Value::Storage { storage, start, length }) = arguments.first().map(|id| self.get(*id)) else {
            return broken("a tensor without storage");
        };
        let [Some(offset), Some(shape), Some(strides)] =
            [self.size(arguments.get(1)).map(|n| vec![n]), self.sizes(arguments.get(2)), self.sizes(arguments.get(3))]
        else {
            return broken("a tensor without offset, shape and strides, or with negative ones");
        };
        let mut element = self.storages[storage].element;
        let mut held = length;
        if let Some(place) = dtype {
            let Some(Value::Global(Global::Dtype(named))) = arguments.get(place).map(|id| self.get(*id)) else {
                return broken("a tensor without number format");
            };
            // Such storages are of bytes.
            held = length * element.size / named.size;
            if !(start * element.size).is_multiple_of(named.size) {
                return broken("a tensor in the middle of a number");
            }
            element = *named;
        }
        let key = &self.storages[storage].key;
        let shown = |what: &str| {
            broken(format!("a tensor of shape {shape:?} {what} storage `{key}`, which has {held} elements"))
        };
        if shape.len() != strides.len() {
            return shown("without a stride for each dimension in");
        }
        let Some(count) = shape.iter().try_fold(1u64, |count, &n| count.checked_mul(n)) else {
            return shown("has more elements than");
        };
        if count > held {
            return shown("has more elements than");
        }
        let steps = shape
            .iter()
            .zip(&strides)
            .try_fold(offset[0], |end, (&n, &stride)| end.checked_add(n.saturating_sub(1).checked_mul(stride)?));
        if count > 0 && steps.is_none_or(|last| last >= held) {
            return shown(&format!("with strides {strides:?} from element {} leaves", offset[0]));
        }
        let Ok(shape) = shape.iter().map(|&n| usize::try_from(n)).collect::<Result<Vec<_>, _>>() else {
            return shown("is too large for");
        };
        let start = start * self.storages[storage].element.size / element.size;
        Ok(Value::Tensor(Arc::new(TensorView { storage, element, offset: start + offset[0], shape, strides })))
    }
}
