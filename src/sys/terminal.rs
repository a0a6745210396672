//! What a person types.

use std::io;

use crate::units::Secret;

/// The longest line that is read.
#[cfg(unix)]
const MAX: usize = 1_024;

#[cfg(unix)]
pub use unix::ask;

#[cfg(all(unix, feature = "gateway"))]
pub use unix::{ask_shown, is_there};

#[cfg(all(unix, feature = "gateway"))]
pub use size::size;

#[cfg(not(unix))]
pub use elsewhere::ask;

/// Reads a line from standard input that is no terminal.
///
/// # Errors
/// The reason; [`io::ErrorKind::UnexpectedEof`] where there is nothing.
pub fn read_line() -> io::Result<Secret> {
    use io::BufRead;
    let mut line = zeroize::Zeroizing::new(String::with_capacity(256));
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed"));
    }
    Ok(Secret::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(all(unix, feature = "gateway"))]
mod size {
    #![expect(unsafe_code, reason = "asks the kernel how large a terminal is")]

    use nix::libc;

    /// Rows and columns of the terminal that standard output is; none where it is none, or does not say.
    #[must_use]
    pub fn size() -> Option<(u16, u16)> {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel writes one `struct winsize` there (ioctl_tty(2)), which outlives the call.
        let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
        (asked == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::{File, OpenOptions};
    use std::io::{self, Read, Write};

    #[cfg(feature = "gateway")]
    use nix::sys::termios::SpecialCharacterIndices;
    use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

    use super::MAX;
    use crate::sys::patience::Patience;
    use crate::units::Secret;

    /// Asks at the terminal of this process, wherever standard input and output lead, and reads a line without
    /// showing it; none where there is no terminal.
    ///
    /// # Errors
    /// The reason; [`io::ErrorKind::Interrupted`] for Ctrl-C or a signal that ends processes,
    /// [`io::ErrorKind::UnexpectedEof`] for Ctrl-D or a terminal that is gone.
    pub fn ask(question: &str) -> io::Result<Option<Secret>> {
        let Ok(mut tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            return Ok(None);
        };
        // Silent first: who types as soon as the question is there must not be shown, nor lose a character.
        let patience = Patience::begin();
        let silent = Silent::new(&tty)?;
        tty.write_all(format!("{question} ").as_bytes())?;
        let line = read_line(&mut patience.typed(&mut tty)).map_err(plainly);
        drop(silent);
        drop(patience);
        let ended = tty.write_all(b"\n");
        let line = line?;
        ended.map(|()| Some(line))
    }

    /// Whether this process has a terminal.
    #[cfg(feature = "gateway")]
    #[must_use]
    pub fn is_there() -> bool {
        File::open("/dev/tty").is_ok()
    }

    /// Asks at the terminal of this process and reads a line, which is shown as it is typed; none where there is no terminal.
    ///
    /// # Errors
    /// The reason; [`io::ErrorKind::Interrupted`] for Ctrl-C or a signal that ends processes,
    /// [`io::ErrorKind::UnexpectedEof`] for Ctrl-D or a terminal that is gone.
    #[cfg(feature = "gateway")]
    pub fn ask_shown(question: &str) -> io::Result<Option<String>> {
        let Ok(mut tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            return Ok(None);
        };
        let before = tcgetattr(&tty)?;
        let mut heard = before.clone();
        // Ctrl-C ends the line instead of the process; all else is the terminal's, such as the keys that edit a line.
        let [interrupt, end] =
            [SpecialCharacterIndices::VINTR, SpecialCharacterIndices::VEOL].map(|at| at as usize);
        if let Some(key) = heard.control_chars.get_mut(interrupt) {
            *key = DISABLED;
        }
        if let Some(key) = heard.control_chars.get_mut(end) {
            *key = CTRL_C;
        }
        let patience = Patience::begin();
        let restored = Restored(tty.try_clone()?, before);
        tcsetattr(&tty, SetArg::TCSANOW, &heard)?;
        tty.write_all(format!("{question} ").as_bytes())?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            let read = patience.typed(&mut tty).read(&mut byte);
            let told = matches!(&read, Err(error) if error.kind() == io::ErrorKind::Interrupted);
            if told || byte == [CTRL_C] {
                drop(restored);
                tty.write_all(b"\n")?;
                return Err(plainly(io::ErrorKind::Interrupted.into()));
            }
            match read? {
                0 => return Err(plainly(io::ErrorKind::UnexpectedEof.into())),
                _ if byte == *b"\n" => break,
                _ if line.len() < MAX => line.extend(byte),
                _ => {}
            }
        }
        String::from_utf8(line).map(Some).map_err(|_| plainly(io::ErrorKind::InvalidData.into()))
    }

    /// Why nothing was read, in words for who sat there.
    fn plainly(error: io::Error) -> io::Error {
        let kind = error.kind();
        let text = match kind {
            io::ErrorKind::Interrupted => "given up",
            io::ErrorKind::UnexpectedEof => "end of input",
            io::ErrorKind::InvalidData => "what was typed is not UTF-8",
            _ => return error,
        };
        io::Error::new(kind, text)
    }

    #[cfg(feature = "gateway")]
    const CTRL_C: u8 = 3;
    /// What no key is (`_POSIX_VDISABLE`, `termios.h`).
    #[cfg(feature = "gateway")]
    const DISABLED: u8 = 0;

    /// A terminal that is as it was before, when this is dropped.
    #[cfg(feature = "gateway")]
    struct Restored(File, Termios);

    #[cfg(feature = "gateway")]
    impl Drop for Restored {
        fn drop(&mut self) {
            let _ = tcsetattr(&self.0, SetArg::TCSANOW, &self.1);
        }
    }

    /// A terminal that shows nothing and leaves Ctrl-C to us, until it is dropped.
    struct Silent(File, Termios);

    impl Silent {
        fn new(tty: &File) -> io::Result<Self> {
            let before = tcgetattr(tty)?;
            let mut silent = before.clone();
            silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
            tcsetattr(tty, SetArg::TCSAFLUSH, &silent)?;
            Ok(Self(tty.try_clone()?, before))
        }
    }

    impl Drop for Silent {
        fn drop(&mut self) {
            // Nobody can be told; the shell sets its terminal anew.
            let _ = tcsetattr(&self.0, SetArg::TCSANOW, &self.1);
        }
    }

    fn read_line(tty: &mut impl Read) -> io::Result<Secret> {
        let mut line = zeroize::Zeroizing::new(Vec::with_capacity(MAX));
        let mut byte = [0];
        loop {
            if tty.read(&mut byte)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match byte {
                [b'\r' | b'\n'] => break,
                [3] => return Err(io::ErrorKind::Interrupted.into()),
                [4] => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Ctrl-U: anew.
                [21] => line.clear(),
                [8 | 127] => while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {},
                [other] if line.len() < MAX => line.push(other),
                [_] => {}
            }
        }
        let text = std::str::from_utf8(&line).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Secret::new(text.to_owned()))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_typed_line_can_be_corrected_and_given_up() {
            let read = |typed: &str| read_line(&mut typed.as_bytes());
            assert_eq!(read("secrxä\u{7f}\u{7f}et\r").unwrap().expose(), "secret");
            assert_eq!(read("wrong\u{15}right\n").unwrap().expose(), "right");
            assert_eq!(read("abc\u{3}").unwrap_err().kind(), io::ErrorKind::Interrupted);
            assert_eq!(read("\u{4}").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(read("abc").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::io;

    use crate::units::Secret;

    /// Asks at the console and reads a line without showing it.
    ///
    /// # Errors
    /// The reason.
    pub fn ask(question: &str) -> io::Result<Option<Secret>> {
        rpassword::prompt_password(format!("{question} ")).map(|line| Some(Secret::new(line)))
    }
}
