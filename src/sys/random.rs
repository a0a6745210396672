//! Random bytes from the kernel.

use ring::rand::{SecureRandom, SystemRandom};

/// Fills an array with random bytes.
///
/// # Errors
/// When the kernel has none, which current kernels never say.
pub fn bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut out = [0; N];
    SystemRandom::new()
        .fill(&mut out)
        .map_err(|_| std::io::Error::other("the kernel gives no random bytes"))?;
    Ok(out)
}
