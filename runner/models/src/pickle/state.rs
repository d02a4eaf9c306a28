//! The named tensors of a checkpoint: a state dict, one inside a training checkpoint, or the modules of a TorchScript archive.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::pickle::{
    Problem,
    machine::{Pickle, broken},
    value::{Id, TensorView, Value},
};

/// Where training scripts put the state dict.
const WRAPPERS: &[&str] = &["state_dict", "model_state_dict", "model", "net", "module"];
/// What wrapping a module puts before all of its names: by data parallelism and by compiling.
const PREFIXES: &[&str] = &["module.", "_orig_mod."];
/// Modules inside modules.
const MAX_DEPTH: usize = 32;
/// Modules, each time that they are met.
const MAX_MODULES: usize = 100_000;
/// Bytes of a tensor's name.
const MAX_NAME: usize = 512;

/// What a pickle holds of a model.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tensors: BTreeMap<String, Arc<TensorView>>,
    /// The last part of the names of TorchScript's classes: `QuickGELU`. Empty for a state dict.
    pub(super) classes: BTreeSet<String>,
}

/// Finds the tensors.
pub(super) fn find(pickle: &Pickle) -> Result<State, Problem> {
    let mut state = State::default();
    match pickle.root() {
        Value::Module { .. } => modules(pickle, &mut state)?,
        Value::Dict(items) => state.tensors = tensors(pickle, wrapped(pickle, items))?,
        _ => return broken("expected a state dict, which maps names to tensors"),
    }
    if state.tensors.is_empty() {
        return broken("no tensors with names: expected a state dict, or one under `state_dict` or `model`");
    }
    for prefix in PREFIXES {
        if state.tensors.keys().all(|name| name.starts_with(prefix)) {
            let bare = state.tensors.into_iter().map(|(name, view)| (name[prefix.len()..].to_owned(), view));
            state.tensors = bare.collect();
        }
    }
    Ok(state)
}

/// The dictionary with tensors: this one, or the one in it that training scripts wrap.
fn wrapped<'a>(pickle: &'a Pickle, mut items: &'a [(Id, Id)]) -> &'a [(Id, Id)] {
    for _ in 0..3 {
        if items.iter().any(|(_, value)| matches!(pickle.get(*value), Value::Tensor(_))) {
            break;
        }
        let named = |name: &&str| items.iter().rev().find(|(key, _)| pickle.text(*key) == Some(name));
        let inner = WRAPPERS.iter().find_map(|name| match pickle.get(named(name)?.1) {
            Value::Dict(inner) => Some(inner),
            _ => None,
        });
        match inner {
            Some(inner) => items = inner,
            None => break,
        }
    }
    items
}

fn tensors(pickle: &Pickle, items: &[(Id, Id)]) -> Result<BTreeMap<String, Arc<TensorView>>, Problem> {
    let mut found = BTreeMap::new();
    for (key, value) in items {
        if let (Some(name), Value::Tensor(view)) = (pickle.text(*key), pickle.get(*value)) {
            found.insert(named("", name)?, view.clone());
        }
    }
    Ok(found)
}

fn named(prefix: &str, name: &str) -> Result<String, Problem> {
    if prefix.len() + name.len() > MAX_NAME {
        return broken(format!("a tensor whose name has more than {MAX_NAME} bytes"));
    }
    Ok(format!("{prefix}{name}"))
}

/// The tensors of a tree of TorchScript modules, by dotted names.
fn modules(pickle: &Pickle, state: &mut State) -> Result<(), Problem> {
    let mut waiting = vec![(String::new(), 0usize, pickle.root())];
    let mut met = 0usize;
    while let Some((prefix, depth, module)) = waiting.pop() {
        met += 1;
        if met > MAX_MODULES || depth > MAX_DEPTH {
            return broken("modules inside modules without end");
        }
        let Value::Module { class, state: attributes } = module else { continue };
        state.classes.insert(class.rsplit('.').next().unwrap_or_default().chars().take(64).collect());
        let Some(Value::Dict(items)) = attributes.map(|attributes| pickle.get(attributes)) else { continue };
        for (key, value) in items {
            let Some(name) = pickle.text(*key) else { continue };
            match pickle.get(*value) {
                Value::Tensor(view) => {
                    state.tensors.insert(named(&prefix, name)?, view.clone());
                }
                inner @ Value::Module { .. } if waiting.len() < MAX_MODULES => {
                    waiting.push((named(&prefix, name)? + ".", depth + 1, inner));
                }
                Value::Module { .. } => return broken("modules inside modules without end"),
                _ => {}
            }
        }
    }
    Ok(())
}
