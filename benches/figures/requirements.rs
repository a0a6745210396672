//! What a run needs at least; what it compares with may be missing.

use std::path::{Path, PathBuf};

/// Stops the run unless it is root's, with `ip` and `nft`.
pub fn demand() {
    assert!(nix::unistd::geteuid().is_root(), "this makes network namespaces, which needs root");
    for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        assert!(find(tool).is_some(), "`{tool}` is not installed: apt-get install {package}");
    }
}

/// Where a program is, if it is installed.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(|p| Path::new(p).to_owned()));
    folders.map(|folder| folder.join(tool)).find(|file| file.is_file())
}
