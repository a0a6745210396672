//! Tells systemd how the service stands (`sd_notify(3)`).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Sends `READY=1`, `STOPPING=1` or the like; nothing where nobody listens (`NOTIFY_SOCKET` unset).
///
/// # Errors
/// When the socket that systemd named cannot be written to.
pub fn notify(state: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Within what time systemd wants to hear `WATCHDOG=1`; none where it does not, or from another process.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    within(env::var("WATCHDOG_USEC").ok().as_deref(), env::var("WATCHDOG_PID").ok().as_deref())
}

fn within(microseconds: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let microseconds = microseconds?.parse().ok().filter(|time| *time > 0)?;
    let ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
    ours.then(|| Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_ours_or_nobody_s() {
        let own = std::process::id().to_string();
        assert_eq!(within(Some("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(within(Some("2000000"), Some(&own)), Some(Duration::from_secs(2)));
        for (time, pid) in
            [(Some("2000000"), Some("1")), (None, Some(own.as_str())), (Some("0"), None), (Some("x"), None)]
        {
            assert_eq!(within(time, pid), None, "{time:?} {pid:?}");
        }
    }
}
