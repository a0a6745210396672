use std::process::ExitCode;

/// How the program ended, as its exit code tells (those above 63 as in `sysexits.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was done.
    Done,
    /// 1: it was looked at, and something of weight was found.
    Found,
    /// 2: the command line makes no sense.
    Usage,
    /// 10: the client could not send step 1.
    NoGateway,
    /// 11: step 2 did not open to the client.
    NoStep2,
    /// 12: the certificate of step 2 is not trusted.
    Untrusted,
    /// 13: step 2 refused the client.
    Refused,
    /// 14: a one-time code is needed, and there is none.
    NoCode,
    /// 15: the client knocked too often.
    TooMany,
    /// 16: step 2 did not answer as a gateway does.
    BadAnswer,
    /// The exit code of a program that was started, or 130 where a signal came first.
    Other(u8),
    /// 69: the daemon or the kernel cannot be reached.
    Unavailable,
    /// 70: a fault of the program itself.
    Bug,
    /// 74: reading or writing failed.
    Io,
    /// 77: a permission or capability is missing.
    NoPermission,
    /// 78: the configuration cannot be used.
    BadConfig,
}

impl Exit {
    /// The number that goes to the caller.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Found => 1,
            Self::Usage => 2,
            Self::NoGateway => 10,
            Self::NoStep2 => 11,
            Self::Untrusted => 12,
            Self::Refused => 13,
            Self::NoCode => 14,
            Self::TooMany => 15,
            Self::BadAnswer => 16,
            Self::Other(code) => code,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Io => 74,
            Self::NoPermission => 77,
            Self::BadConfig => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
