//! Network interfaces of this network namespace.

use std::io;

/// Their names, sorted.
///
/// # Errors
/// When the kernel does not say.
pub fn names() -> io::Result<Vec<String>> {
    let mut out: Vec<String> = nix::net::if_::if_nameindex()?
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect();
    out.sort();
    Ok(out)
}
