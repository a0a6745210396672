use crate::knock::{LIFETIME_HEADER, Problem};
use crate::service::link::Answer;
use crate::units::Lifetime;

/// What a client is told: one status and no reason that would help to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// 200.
    Opened,
    /// 200: the service is open for so long at least.
    Granted(Lifetime),
    /// 401: the key was right, now the code.
    NeedToken,
    /// 403, the same for a wrong app, key or code.
    Refused,
    /// 429.
    TooMany,
    /// 503.
    Unavailable,
    /// What was sent is no knock.
    Problem(Problem),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Opened => Self::Opened,
            Answer::Granted(lifetime) => Self::Granted(lifetime),
            Answer::NeedToken => Self::NeedToken,
            Answer::Refused => Self::Refused,
            Answer::TooMany => Self::TooMany,
            Answer::Unavailable => Self::Unavailable,
        }
    }
}

impl Reply {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Opened | Self::Granted(_) => 200,
            Self::NeedToken => 401,
            Self::Refused => 403,
            Self::TooMany => 429,
            Self::Unavailable => 503,
            Self::Problem(problem) => problem.status(),
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Opened | Self::Granted(_) => "OK",
            Self::NeedToken => "Unauthorized",
            Self::Refused => "Forbidden",
            Self::TooMany => "Too Many Requests",
            Self::Unavailable => "Service Unavailable",
            Self::Problem(problem) => match problem {
                Problem::Malformed => "Bad Request",
                Problem::NotFound => "Not Found",
                Problem::Method => "Method Not Allowed",
                Problem::TooSlow => "Request Timeout",
                Problem::NoLength => "Length Required",
                Problem::TooLarge => "Content Too Large",
                Problem::NotAForm => "Unsupported Media Type",
                Problem::HeadTooLarge => "Request Header Fields Too Large",
                Problem::Version => "HTTP Version Not Supported",
            },
        }
    }

    /// The whole answer as it goes over the wire.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (status, reason) = (self.status(), self.reason());
        let extra = match self {
            Self::Granted(lifetime) => &format!("{LIFETIME_HEADER}: {}\r\n", lifetime.as_secs()),
            Self::NeedToken => "WWW-Authenticate: TOTP\r\n",
            Self::Problem(Problem::Method) => "Allow: POST\r\n",
            Self::TooMany => "Retry-After: 60\r\n",
            Self::Opened | Self::Refused | Self::Unavailable | Self::Problem(_) => "",
        };
        let length = reason.len() + 1;
        format!(
            "HTTP/1.1 {status} {reason}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{reason}\n"
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_length_it_says() {
        let granted = Reply::Granted(Lifetime::MAX);
        for reply in [Reply::Opened, granted, Reply::NeedToken, Reply::Problem(Problem::HeadTooLarge)] {
            let text = String::from_utf8(reply.to_bytes()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
        }
    }

    #[test]
    fn headers_that_a_status_needs_are_there() {
        let text = |reply: Reply| String::from_utf8(reply.to_bytes()).unwrap();
        assert!(text(Reply::Opened).ends_with("\r\n\r\nOK\n"));
        assert!(!text(Reply::Opened).contains("Knock-Lifetime"));
        let granted = text(Reply::Granted(Lifetime::from_secs(90).unwrap()));
        assert!(granted.contains("\r\nKnock-Lifetime: 90\r\n") && granted.ends_with("\r\n\r\nOK\n"));
        assert!(text(Reply::NeedToken).contains("\r\nWWW-Authenticate: TOTP\r\n"));
        assert!(text(Reply::Problem(Problem::Method)).contains("\r\nAllow: POST\r\n"));
    }
}
