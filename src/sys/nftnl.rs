//! Safe builders over libnftnl's objects, for what the `nftnl` crate has no words for:
//! element timeouts, intervals, verdict maps, dynamic sets, rates.
//!
//! Each builder owns one libnftnl object and frees it when dropped; an object handed
//! to another one (an expression to a rule, an element to a set) is freed with it.
#![expect(unsafe_code, reason = "calls into libnftnl")]

use std::cell::Cell;
use std::ffi::{CString, c_char};
use std::ptr::NonNull;

use nftnl_sys as sys;

/// `NFPROTO_INET` (`linux/netfilter.h`).
pub const FAMILY_INET: u16 = 1;

/// Message types of nf_tables (`linux/netfilter/nf_tables.h`, `enum nf_tables_msg_types`).
pub mod msg {
    /// Makes a table.
    pub const NEW_TABLE: u16 = 0;
    /// Dumps tables.
    pub const GET_TABLE: u16 = 1;
    /// Removes a table and all in it.
    pub const DEL_TABLE: u16 = 2;
    /// Makes a chain.
    pub const NEW_CHAIN: u16 = 3;
    /// Dumps chains.
    pub const GET_CHAIN: u16 = 4;
    /// Removes a chain.
    pub const DEL_CHAIN: u16 = 5;
    /// Makes a rule.
    pub const NEW_RULE: u16 = 6;
    /// Dumps rules.
    pub const GET_RULE: u16 = 7;
    /// Removes rules.
    pub const DEL_RULE: u16 = 8;
    /// Makes a set.
    pub const NEW_SET: u16 = 9;
    /// Dumps sets.
    pub const GET_SET: u16 = 10;
    /// Removes a set.
    pub const DEL_SET: u16 = 11;
    /// Adds elements.
    pub const NEW_ELEMENTS: u16 = 12;
    /// Dumps elements.
    pub const GET_ELEMENTS: u16 = 13;
    /// Removes elements.
    pub const DEL_ELEMENTS: u16 = 14;
    /// Asks for the generation of the whole ruleset.
    pub const GET_GENERATION: u16 = 16;
    /// Dumps flowtables.
    pub const GET_FLOWTABLE: u16 = 23;
}

/// Flags of a request (`linux/netlink.h`).
pub mod flag {
    /// Make what is not there.
    pub const CREATE: u16 = 0x400;
    /// Put it last.
    pub const APPEND: u16 = 0x800;
    /// Give all of them.
    pub const DUMP: u16 = 0x300;
}

/// Why libnftnl or a name did not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Out of memory, or libnftnl lacks the expression.
    #[error("libnftnl cannot make this object: a newer libnftnl is needed, or memory is short")]
    Alloc,
    /// A text with a zero byte.
    #[error("a name holds a zero byte")]
    Name,
}

type Alloc<T> = Result<NonNull<T>, BuildError>;

fn text(value: &str) -> Result<CString, BuildError> {
    CString::new(value).map_err(|_| BuildError::Name)
}

macro_rules! object {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $free:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(NonNull<$raw>);

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the pointer came from libnftnl's own alloc, nobody else has it, and it is freed once.
                unsafe { $free(self.0.as_ptr()) }
            }
        }

        impl $name {
            /// Gives the object up to another one that frees it.
            #[allow(dead_code, reason = "only parts of other objects are handed over")]
            fn into_raw(self) -> *mut $raw {
                let raw = self.0.as_ptr();
                std::mem::forget(self);
                raw
            }
        }
    };
}

object!(
    /// A table.
    Table, sys::nftnl_table, sys::nftnl_table_free
);
object!(
    /// A chain.
    Chain, sys::nftnl_chain, sys::nftnl_chain_free
);
object!(
    /// A rule.
    Rule, sys::nftnl_rule, sys::nftnl_rule_free
);
object!(
    /// A set, or a bundle of elements of one.
    Set, sys::nftnl_set, sys::nftnl_set_free
);
object!(
    /// One element of a set.
    Element, sys::nftnl_set_elem, sys::nftnl_set_elem_free
);
object!(
    /// One expression of a rule.
    Expression, sys::nftnl_expr, sys::nftnl_expr_free
);

fn len32(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

macro_rules! alloc {
    ($call:expr) => {{
        // SAFETY: allocates; null is checked.
        let raw: Alloc<_> = NonNull::new(unsafe { $call }).ok_or(BuildError::Alloc);
        raw
    }};
}

macro_rules! setters {
    ($name:ident, $u32:path, $text:path, $data:path) => {
        impl $name {
            /// Sets a 32-bit attribute.
            pub fn set_u32(&mut self, attr: u32, value: u32) {
                // SAFETY: the object is alive; libnftnl copies the value.
                unsafe {
                    $u32(self.0.as_ptr(), attr as u16, value);
                }
            }

            /// Sets a text attribute.
            ///
            /// # Errors
            /// [`BuildError::Name`] for a zero byte, [`BuildError::Alloc`] without memory.
            pub fn set_text(&mut self, attr: u32, value: &str) -> Result<(), BuildError> {
                let value = text(value)?;
                // SAFETY: the object is alive; libnftnl copies the text.
                unsafe {
                    let _ = $text(self.0.as_ptr(), attr as u16, value.as_ptr());
                }
                Ok(())
            }

            /// Sets an attribute of bytes.
            pub fn set_data(&mut self, attr: u32, value: &[u8]) {
                // SAFETY: the object is alive; libnftnl copies `value.len()` bytes.
                unsafe {
                    let _ = $data(self.0.as_ptr(), attr as u16, value.as_ptr().cast(), len32(value));
                }
            }
        }
    };
}

setters!(Table, sys::nftnl_table_set_u32, sys::nftnl_table_set_str, sys::nftnl_table_set_data);
setters!(Chain, sys::nftnl_chain_set_u32, sys::nftnl_chain_set_str, sys::nftnl_chain_set_data);
setters!(Rule, sys::nftnl_rule_set_u32, sys::nftnl_rule_set_str, sys::nftnl_rule_set_data);
setters!(Set, sys::nftnl_set_set_u32, sys::nftnl_set_set_str, sys::nftnl_set_set_data);
setters!(Expression, sys::nftnl_expr_set_u32, sys::nftnl_expr_set_str, sys::nftnl_expr_set);

impl Table {
    /// An empty table object.
    ///
    /// # Errors
    /// [`BuildError::Alloc`] without memory.
    pub fn new() -> Result<Self, BuildError> {
        alloc!(sys::nftnl_table_alloc()).map(Self)
    }
}

impl Chain {
    /// An empty chain object.
    ///
    /// # Errors
    /// [`BuildError::Alloc`] without memory.
    pub fn new() -> Result<Self, BuildError> {
        alloc!(sys::nftnl_chain_alloc()).map(Self)
    }

    /// Sets a signed 32-bit attribute.
    pub fn set_s32(&mut self, attr: u32, value: i32) {
        // SAFETY: the object is alive; libnftnl copies the value.
        unsafe { sys::nftnl_chain_set_s32(self.0.as_ptr(), attr as u16, value) }
    }
}

impl Rule {
    /// An empty rule object.
    ///
    /// # Errors
    /// [`BuildError::Alloc`] without memory.
    pub fn new() -> Result<Self, BuildError> {
        alloc!(sys::nftnl_rule_alloc()).map(Self)
    }

    /// Sets a 64-bit attribute.
    pub fn set_u64(&mut self, attr: u32, value: u64) {
        // SAFETY: the object is alive; libnftnl copies the value.
        unsafe { sys::nftnl_rule_set_u64(self.0.as_ptr(), attr as u16, value) }
    }

    /// Appends an expression.
    pub fn add(&mut self, expression: Expression) {
        // SAFETY: both are alive; the rule takes the expression over and frees it.
        unsafe { sys::nftnl_rule_add_expr(self.0.as_ptr(), expression.into_raw()) }
    }
}

impl Set {
    /// An empty set object.
    ///
    /// # Errors
    /// [`BuildError::Alloc`] without memory.
    pub fn new() -> Result<Self, BuildError> {
        alloc!(sys::nftnl_set_alloc()).map(Self)
    }

    /// Adds an element.
    pub fn add(&mut self, element: Element) {
        // SAFETY: both are alive; the set takes the element over and frees it.
        unsafe { sys::nftnl_set_elem_add(self.0.as_ptr(), element.into_raw()) }
    }
}

impl Element {
    /// An empty element object.
    ///
    /// # Errors
    /// [`BuildError::Alloc`] without memory.
    pub fn new() -> Result<Self, BuildError> {
        alloc!(sys::nftnl_set_elem_alloc()).map(Self)
    }

    /// Sets a 32-bit attribute.
    pub fn set_u32(&mut self, attr: u32, value: u32) {
        // SAFETY: the object is alive; libnftnl copies the value.
        unsafe { sys::nftnl_set_elem_set_u32(self.0.as_ptr(), attr as u16, value) }
    }

    /// Sets a 64-bit attribute.
    pub fn set_u64(&mut self, attr: u32, value: u64) {
        // SAFETY: the object is alive; libnftnl copies the value.
        unsafe { sys::nftnl_set_elem_set_u64(self.0.as_ptr(), attr as u16, value) }
    }

    /// Sets a text attribute.
    ///
    /// # Errors
    /// [`BuildError::Name`] for a zero byte.
    pub fn set_text(&mut self, attr: u32, value: &str) -> Result<(), BuildError> {
        let value = text(value)?;
        // SAFETY: the object is alive; libnftnl copies the text.
        unsafe {
            let _ = sys::nftnl_set_elem_set_str(self.0.as_ptr(), attr as u16, value.as_ptr());
        }
        Ok(())
    }

    /// Sets an attribute of bytes.
    pub fn set_data(&mut self, attr: u32, value: &[u8]) {
        // SAFETY: the object is alive; libnftnl copies `value.len()` bytes.
        unsafe {
            let _ =
                sys::nftnl_set_elem_set(self.0.as_ptr(), attr as u16, value.as_ptr().cast(), len32(value));
        }
    }
}

impl Expression {
    /// An expression of that name, without attributes.
    ///
    /// # Errors
    /// [`BuildError::Alloc`] where libnftnl does not know it.
    pub fn new(name: &str) -> Result<Self, BuildError> {
        let name = text(name)?;
        alloc!(sys::nftnl_expr_alloc(name.as_ptr())).map(Self)
    }

    /// Sets a 64-bit attribute.
    pub fn set_u64(&mut self, attr: u32, value: u64) {
        // SAFETY: the object is alive; libnftnl copies the value.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), attr as u16, value) }
    }

    /// Hangs another expression into this one (a rate into a dynamic-set update).
    pub fn add(&mut self, inner: Expression) {
        // SAFETY: both are alive; for this attribute libnftnl takes a pointer to an expression, without
        // a length, which the outer expression takes over and frees.
        unsafe {
            let _ = sys::nftnl_expr_set(
                self.0.as_ptr(),
                sys::NFTNL_EXPR_DYNSET_EXPR as u16,
                inner.into_raw().cast_const().cast(),
                0,
            );
        }
    }
}

/// What a message carries.
#[derive(Debug)]
pub enum Body {
    /// Nothing beside the header.
    Empty,
    /// A table.
    Table(Table),
    /// A chain.
    Chain(Chain),
    /// A rule.
    Rule(Rule),
    /// A set without elements.
    Set(Set),
    /// Elements of a set.
    Elements(Set),
}

/// One message of a transaction.
#[derive(Debug)]
pub struct Message {
    kind: u16,
    family: u16,
    flags: u16,
    body: Body,
    sequence: Cell<u32>,
}

impl Message {
    /// A message of that type ([`msg`]) with those flags ([`flag`]).
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: Body) -> Self {
        Self { kind, family: FAMILY_INET, flags, body, sequence: Cell::new(0) }
    }

    /// The same about another family (`NFPROTO_*`).
    #[must_use]
    pub fn of_family(mut self, family: u16) -> Self {
        self.family = family;
        self
    }

    /// Its bytes, outside a batch, as a query for all objects it describes.
    pub(super) fn as_dump(&self, scratch: &mut Scratch) -> Vec<u8> {
        let mut bytes = self.to_bytes(scratch);
        // The flags of the header (`struct nlmsghdr`).
        if let Some([low, high]) = bytes.get_mut(6..8) {
            let flags = u16::from_ne_bytes([*low, *high]) | flag::DUMP;
            [*low, *high] = flags.to_ne_bytes();
        }
        bytes
    }

    /// Its bytes, outside a batch.
    #[must_use]
    pub fn to_bytes(&self, scratch: &mut Scratch) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes, scratch, 1);
        bytes
    }

    /// Appends its bytes, under this number.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, scratch: &mut Scratch, sequence: u32) {
        self.sequence.set(sequence);
        let room = scratch.0.len() * 8;
        // SAFETY: the buffer is aligned and has room for the largest message of libnftnl, which bounds what callers put
        // into one; the objects are alive; the length that was written stands in its first four bytes.
        let bytes = unsafe {
            let start = scratch.0.as_mut_ptr();
            self.write(start.cast());
            let length = usize::try_from(*start.cast::<u32>()).unwrap_or(0).min(room);
            std::slice::from_raw_parts(start.cast::<u8>(), length)
        };
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    /// Writes one netlink message.
    ///
    /// # Safety
    /// The buffer has room for one message of the largest size.
    unsafe fn write(&self, buffer: *mut c_char) {
        // SAFETY: `buffer` has room for a message; the objects are alive.
        unsafe {
            let header =
                sys::nftnl_nlmsg_build_hdr(buffer, self.kind, self.family, self.flags, self.sequence.get());
            match &self.body {
                Body::Empty => {}
                Body::Table(table) => sys::nftnl_table_nlmsg_build_payload(header, table.0.as_ptr()),
                Body::Chain(chain) => sys::nftnl_chain_nlmsg_build_payload(header, chain.0.as_ptr()),
                Body::Rule(rule) => sys::nftnl_rule_nlmsg_build_payload(header, rule.0.as_ptr()),
                Body::Set(set) => sys::nftnl_set_nlmsg_build_payload(header, set.0.as_ptr()),
                Body::Elements(set) => sys::nftnl_set_elems_nlmsg_build_payload(header, set.0.as_ptr()),
            }
        }
    }

    /// The number it was sent under, by which the kernel's errors name it; 0 before.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence.get()
    }
}

/// Room for one message of the largest size, used again and again: to clear that much for each would take longer than
/// the kernel takes for a grant.
pub struct Scratch(Vec<u64>);

impl Default for Scratch {
    fn default() -> Self {
        let room = usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(usize::from(u16::MAX));
        // Whole words, because libnftnl writes aligned headers.
        Self(vec![0; room.div_ceil(8)])
    }
}
