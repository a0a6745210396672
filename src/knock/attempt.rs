use crate::units::{AppName, ClientAddr, Lifetime, Secret};

/// Which of the two steps a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Plain HTTP, silent.
    One,
    /// HTTPS.
    Two,
}

/// What a client presented at a step. Everything in it is unverified.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who asks, as the socket says.
    pub client: ClientAddr,
    /// At which step.
    pub step: Step,
    /// The form field `app`, at most 50 characters.
    pub app: String,
    /// The form field `access_key`, 10 to 50 characters.
    pub access_key: Secret,
    /// The form field `token`, if it was there.
    pub token: Option<Secret>,
}

/// What becomes of an [`Attempt`].
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Step 1 was right: admit this address to step 2.
    AdmitToStep2 {
        /// The app it knocked for.
        app: AppName,
        /// For how long.
        lifetime: Lifetime,
    },
    /// Step 2 was right: open the service.
    Grant {
        /// The app to open.
        app: AppName,
        /// For how long.
        lifetime: Lifetime,
        /// Who it is, as far as the credentials say: `key N` counts the app's keys from 1.
        user: String,
    },
    /// The key was right and a one-time code is missing: answer 401.
    NeedToken {
        /// Renew the admission to step 2 to this much; only the first time.
        readmit: Option<Lifetime>,
    },
    /// Nothing opens.
    Refuse(Refusal),
}

/// Why nothing opens; never told to the client in more detail than its status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No app of that name.
    UnknownApp,
    /// Not a key of that app for that step.
    WrongKey,
    /// The one-time code is wrong.
    WrongToken,
    /// The one-time code was used before.
    ReplayedToken,
    /// Step 1 wants a one-time code and got none.
    MissingToken,
    /// No live step 1 from this address for this app.
    NoStep1,
    /// The service cannot be reached over this address family.
    WrongFamily,
    /// More requests than the limit allows.
    TooMany,
    /// The table of pending knocks is full.
    TableFull,
}
