//! The pickle machine: the opcodes that `torch.save` and TorchScript write, and no way to run anything.
//!
//! Memory is bounded by the bytes read: an opcode makes at most one value, and at most [`MAX_VALUES`] are made. Values
//! refer to each other by number, so nothing here recurses.

use std::{collections::HashMap, io::Read};

use crate::pickle::{
    Problem,
    input::Input,
    value::{Element, Global, Id, Value},
};

/// Values of a pickle.
const MAX_VALUES: usize = 2 << 20;

/// A storage as the pickle names it.
#[derive(Debug)]
pub(super) struct Storage {
    /// Its name in the file.
    pub(super) key: String,
    pub(super) element: Element,
    /// Elements that it is said to hold.
    pub(super) length: u64,
}

/// A pickle that was read: its values, and the one at its end.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    pub(super) storages: Vec<Storage>,
}

impl Pickle {
    pub(super) fn root(&self) -> &Value {
        self.get(self.root)
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }
}

/// Reads one pickle.
pub(super) fn run<R: Read>(input: &mut Input<R>) -> Result<Pickle, Problem> {
    input.next();
    let mut machine = Machine::default();
    loop {
        let opcode = input.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { values: machine.values, root, storages: machine.storages });
        }
        machine.step(opcode, input)?;
    }
}

/// A pickle in the making.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) values: Vec<Value>,
    stack: Vec<Id>,
    /// Lengths of the stack where marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pub(super) storages: Vec<Storage>,
    /// Storages by their names.
    pub(super) keys: HashMap<String, usize>,
    /// Tensors made.
    pub(super) tensors: usize,
    /// Items copied from lists into dictionaries.
    pub(super) copied: usize,
}

pub(super) fn broken<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Broken(problem.into()))
}

impl Machine {
    fn step<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Problem> {
        match opcode {
            // PROTO, FRAME
            0x80 => match input.byte()? {
                0..=5 => Ok(()),
                version => broken(format!("pickle protocol {version}, expected at most 5")),
            },
            0x95 => input.array::<8>().map(|_| ()),
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.marks.push(self.stack.len());
                self.check_stack()
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.since_mark().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                self.check_stack()
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => self.int(i32::from_le_bytes(input.array()?).into()),
            b'K' => self.int(input.byte()?.into()),
            b'M' => self.int(u16::from_le_bytes(input.array()?).into()),
            0x8A => {
                let length = input.byte()?.into();
                let value = long(&input.bytes(length)?);
                self.push(value)
            }
            b'G' => {
                input.array::<8>()?;
                self.push(Value::Inert)
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and the strings of Python 2: BINSTRING, SHORT_BINSTRING
            b'X' | b'T' => {
                let length = input.u32()?.into();
                let text = input.text(length)?;
                self.push(text)
            }
            0x8C | b'U' => {
                let length = input.byte()?.into();
                let text = input.text(length)?;
                self.push(text)
            }
            0x8D => {
                let length = u64::from_le_bytes(input.array()?);
                let text = input.text(length)?;
                self.push(text)
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8
            b'B' | b'C' | 0x8E => {
                let length = match opcode {
                    b'B' => input.u32()?.into(),
                    b'C' => input.byte()?.into(),
                    _ => u64::from_le_bytes(input.array()?),
                };
                input.bytes(length)?;
                self.push(Value::Inert)
            }
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3, EMPTY_LIST, EMPTY_DICT, EMPTY_SET
            b')' => self.push(Value::Tuple(Box::default())),
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items.into()))
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items.into()))
            }
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8F => self.push(Value::Inert),
            // LIST, DICT, FROZENSET
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))
            }
            b'd' => {
                let items = pairs(&self.since_mark()?)?;
                self.push(Value::Dict(items))
            }
            0x91 => {
                self.since_mark()?;
                self.push(Value::Inert)
            }
            // APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(&items)
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(&items)
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(&items)
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => {
                let key = input.byte()?.into();
                self.remember(key)
            }
            b'r' => {
                let key = input.u32()?;
                self.remember(key)
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.remember(key)
            }
            b'h' => {
                let key = input.byte()?.into();
                self.recall(key)
            }
            b'j' => {
                let key = input.u32()?;
                self.recall(key)
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (input.line()?, input.line()?);
                self.push(Value::Global(Global::named(&module, &name)?))
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let global = match names.iter().map(|id| self.text(*id)).collect::<Option<Vec<_>>>().as_deref() {
                    Some([module, name]) if module.len() + name.len() <= 8192 => Global::named(module, name)?,
                    _ => return broken("a name that is no text"),
                };
                self.push(Value::Global(global))
            }
            // INST: a name as GLOBAL has it, called. Nothing that makes tensors is written so.
            b'i' => Err(Problem::Refused(format!("{}.{}", input.line()?, input.line()?))),
            // EXT1, EXT2, EXT4: names by number, from a registry of the program that wrote it.
            0x82..=0x84 => Err(Problem::Refused("a name of Python's extension registry".into())),
            // REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'R' | 0x81 => {
                let call = self.pop_many(2)?;
                self.call(call[0], call[1])
            }
            0x92 => {
                let call = self.pop_many(3)?;
                self.call(call[0], call[1])
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)
            }
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)
            }
            _ => broken(format!("opcode 0x{opcode:02x}, which no checkpoint uses")),
        }
    }

    fn check_stack(&self) -> Result<(), Problem> {
        let most = [self.values.len(), self.stack.len(), self.marks.len(), self.memo.len()].into_iter().max();
        if most > Some(MAX_VALUES) {
            return broken(format!("more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), Problem> {
        let id = Id(u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        self.values.push(value);
        self.stack.push(id);
        self.check_stack()
    }

    fn int(&mut self, value: i64) -> Result<(), Problem> {
        self.push(Value::Int(value))
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }

    /// What stands below the last mark is not to be reached.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        Ok(self.pop_many(1)?[0])
    }

    /// Exactly `n` values from the top.
    fn pop_many(&mut self, n: usize) -> Result<Vec<Id>, Problem> {
        match self.stack.len().checked_sub(n).filter(|&start| start >= self.floor()) {
            Some(start) => Ok(self.stack.split_off(start)),
            None => broken("a value is taken from an empty stack"),
        }
    }

    pub(super) fn top(&self) -> Result<Id, Problem> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or_else(|| Problem::Broken("a value is asked of an empty stack".into()))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, Problem> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => broken("values are taken up to a mark that nobody set"),
        }
    }

    fn remember(&mut self, key: u32) -> Result<(), Problem> {
        let top = self.top()?;
        self.memo.insert(key, top);
        self.check_stack()
    }

    fn recall(&mut self, key: u32) -> Result<(), Problem> {
        match self.memo.get(&key) {
            Some(id) => self.stack.push(*id),
            None => return broken(format!("value {key} is recalled and was never remembered")),
        }
        self.check_stack()
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Problem> {
        let list = self.top()?;
        match self.values.get_mut(list.0 as usize) {
            Some(Value::List(list)) => list.extend(items),
            Some(Value::Inert) => {}
            _ => return broken("values are appended to what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), Problem> {
        let items = pairs(items)?;
        let dict = self.top()?;
        match self.values.get_mut(dict.0 as usize) {
            Some(Value::Dict(dict)) => dict.extend(items),
            Some(Value::Inert) => {}
            _ => return broken("items are put into what is no dictionary"),
        }
        Ok(())
    }
}

/// An integer of any length; what is longer than eight bytes is no size of anything.
fn long(bytes: &[u8]) -> Value {
    let mut wide = [if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xFF } else { 0 }; 8];
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        }
        None => Value::Inert,
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, Problem> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => broken("a key without value"),
    }
}
