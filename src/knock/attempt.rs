use super::proof::Proof;
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
    /// Who asks, as the socket says or a trusted proxy.
    pub client: ClientAddr,
    /// At which step.
    pub step: Step,
    /// The form field `app`, at most 50 characters.
    pub app: String,
    /// The form field `access_key` or `proof`.
    pub credential: Credential,
    /// The form field `user`, if it was there: a user's name or a key's id.
    pub user: Option<String>,
    /// The form field `token`, if it was there.
    pub token: Option<Secret>,
    /// The form field `duration`, if it was there: how long the service should stay open.
    pub duration: Option<Lifetime>,
    /// The form field `action`: what step 2 is to do.
    pub action: Action,
}

/// What a client shows to be let in.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A key, 10 to 50 characters.
    Key(Secret),
    /// A proof of a key of step 1.
    Proof(Proof),
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The service opened, or kept open.
    Open,
    /// What was opened for it closed.
    Close,
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
        /// Who it is: the user's name, or `key N`, which counts the app's keys from 1.
        user: String,
    },
    /// Step 2 was right: close what was opened for this user at this address.
    Close {
        /// The app to close.
        app: AppName,
        /// Who it is, as above.
        user: String,
    },
    /// Whether a key that somebody chose is right takes long to tell: find out, and have
    /// [`judge_hashed`](crate::knock::Gatekeeper::judge_hashed) judge.
    Hash {
        /// The hash, as `argon2id` in the PHC string format.
        hash: Secret,
        /// The key to compare with it.
        key: Secret,
    },
    /// A monitor asks whether anybody is there: say yes, and nothing else happens.
    Alive,
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
    /// The key was good until a date that has passed.
    Expired,
    /// Step 1 wants a proof and got a key.
    KeyNotTaken,
    /// The proof was used before.
    ReplayedProof,
    /// The one-time code is wrong.
    WrongToken,
    /// The one-time code was used before.
    ReplayedToken,
    /// One-time codes of that secret are held back after many wrong ones, from whatever address; it was not looked at.
    HeldToken,
    /// Step 1 wants a one-time code and got none.
    MissingToken,
    /// No live step 1 from this address for this app.
    NoStep1,
    /// The service cannot be reached over this address family.
    WrongFamily,
    /// The address is link-local, and a grant would be for all neighbours (`ipv6_prefix`).
    LinkLocal,
    /// More requests than the limit allows.
    TooMany,
    /// The table of pending knocks is full, or that of used proofs, or its key's share of that.
    TableFull,
    /// The address is locked out after repeated failures; nothing was judged.
    LockedOut,
    /// More requests from everybody together than the cap allows.
    Busy,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::UnknownApp,
        Self::WrongKey,
        Self::Expired,
        Self::KeyNotTaken,
        Self::ReplayedProof,
        Self::WrongToken,
        Self::ReplayedToken,
        Self::HeldToken,
        Self::MissingToken,
        Self::NoStep1,
        Self::WrongFamily,
        Self::LinkLocal,
        Self::TooMany,
        Self::TableFull,
        Self::LockedOut,
        Self::Busy,
    ];

    /// Whether this is what guessing comes to, so that repeating it locks the address out.
    ///
    /// What was right once, or right but for a date or a missing code, guesses nothing: impatience and old clients look
    /// like that. What was not judged tells nothing.
    #[must_use]
    pub fn is_a_guess(self) -> bool {
        match self {
            Self::UnknownApp | Self::WrongKey | Self::WrongToken => true,
            Self::Expired
            | Self::KeyNotTaken
            | Self::ReplayedProof
            | Self::ReplayedToken
            | Self::HeldToken
            | Self::MissingToken
            | Self::NoStep1
            | Self::WrongFamily
            | Self::LinkLocal
            | Self::TooMany
            | Self::TableFull
            | Self::LockedOut
            | Self::Busy => false,
        }
    }

    /// The word for it in the log and in `status`, which stays the same over releases.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownApp => "unknown-app",
            Self::WrongKey => "wrong-key",
            Self::Expired => "expired",
            Self::KeyNotTaken => "key-not-taken",
            Self::ReplayedProof => "replayed-proof",
            Self::WrongToken => "wrong-code",
            Self::ReplayedToken => "replayed-code",
            Self::HeldToken => "code-held",
            Self::MissingToken => "missing-code",
            Self::NoStep1 => "no-step1",
            Self::WrongFamily => "wrong-family",
            Self::LinkLocal => "link-local",
            Self::TooMany => "too-many",
            Self::TableFull => "table-full",
            Self::LockedOut => "locked-out",
            Self::Busy => "busy",
        }
    }
}
