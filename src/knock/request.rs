use serde::{Deserialize, Serialize};

use crate::knock::form::Form;
use crate::units::HttpPath;

pub(super) const MAX_HEADERS: usize = 32;

/// The header by which step 2 tells for how many seconds it opened, at least: less than was asked for where the
/// gateway allows less.
pub const LIFETIME_HEADER: &str = "Knock-Lifetime";

/// How much of one connection is read, in bytes of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Request line and headers with the empty line.
    pub head: usize,
    /// The body.
    pub body: usize,
    /// Both together.
    pub total: usize,
}

impl Limits {
    /// The bounds of step 1: nothing but the whole counts.
    #[must_use]
    pub fn step1(max_bytes: u16) -> Self {
        let total = usize::from(max_bytes);
        Self { head: total, body: total, total }
    }

    /// The bounds of step 1 behind a proxy, which adds headers to what the kernel let through: a head of 4 KiB, a
    /// body of `max_bytes`.
    #[must_use]
    pub fn step1_behind_proxy(max_bytes: u16) -> Self {
        let body = usize::from(max_bytes);
        Self { head: 4_096, body, total: 4_096 + body }
    }

    /// The bounds of step 2: a head of 4 KiB, a body of 1 KiB.
    #[must_use]
    pub fn step2() -> Self {
        Self { head: 4_096, body: 1_024, total: 5_120 }
    }
}

/// How far a request has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Fine so far, not complete.
    NeedMore,
    /// Exactly one good request and not a byte more.
    Done(Form),
    /// It will never be one.
    Bad(Problem),
}

/// Why a request is no knock; what it contained is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// Not HTTP, not the form, or framed in a way that can be read in two ways.
    Malformed,
    /// Another path than the expected one.
    NotFound,
    /// The right path with another method than `POST`.
    Method,
    /// It did not come in time.
    TooSlow,
    /// No `Content-Length`.
    NoLength,
    /// The body or the whole is too long.
    TooLarge,
    /// A body that does not say it is a form.
    NotAForm,
    /// The head is too long.
    HeadTooLarge,
    /// An HTTP version other than 1.0 and 1.1, such as the preface of HTTP/2.
    Version,
}

impl Problem {
    /// The HTTP status code for it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::TooSlow => 408,
            Self::NoLength => 411,
            Self::TooLarge => 413,
            Self::NotAForm => 415,
            Self::HeadTooLarge => 431,
            Self::Version => 505,
        }
    }
}

/// Judges all the bytes a connection has sent so far, which may ask for any of the paths; call it again with more after
/// [`Progress::NeedMore`].
///
/// What follows the first request makes that one bad as well: a connection carries one
/// request, and whoever sends more speaks another language than we do.
#[must_use]
pub fn read_request(bytes: &[u8], paths: &[HttpPath], limits: Limits) -> Progress {
    judge(bytes, paths, limits).unwrap_or_else(Progress::Bad)
}

fn judge(bytes: &[u8], paths: &[HttpPath], limits: Limits) -> Result<Progress, Problem> {
    let Some(head_len) = head_length(bytes)? else {
        let full = bytes.len() >= limits.head || bytes.len() >= limits.total;
        return if full { Err(Problem::HeadTooLarge) } else { Ok(Progress::NeedMore) };
    };
    if head_len > limits.head {
        return Err(Problem::HeadTooLarge);
    }
    let (head, body) = bytes.split_at_checked(head_len).ok_or(Problem::Malformed)?;
    let body_len = body_length(head, paths)?;
    if body_len > limits.body || body_len > limits.total.saturating_sub(head_len) {
        return Err(Problem::TooLarge);
    }
    if body.len() < body_len {
        return Ok(Progress::NeedMore);
    }
    if body.len() > body_len {
        return Err(Problem::Malformed);
    }
    Form::parse(body).map(Progress::Done).ok_or(Problem::Malformed)
}

/// The length of the head with its empty line, once that has come.
///
/// Lines end in CR LF and nothing else: a lone CR or LF is where two readers of one
/// stream begin to disagree. The first byte is that of a method, so no empty line and
/// no blank comes before the request.
fn head_length(bytes: &[u8]) -> Result<Option<usize>, Problem> {
    if bytes.first().is_some_and(|b| !b.is_ascii_alphabetic()) {
        return Err(Problem::Malformed);
    }
    let mut line_start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let next = bytes.get(at + 1);
        match byte {
            b'\r' if next.is_some_and(|&b| b != b'\n') => return Err(Problem::Malformed),
            b'\r' | b'\t' | b' '..=b'~' | 0x80.. => {}
            b'\n' if at == 0 || bytes.get(at - 1) != Some(&b'\r') => return Err(Problem::Malformed),
            b'\n' if at == line_start + 1 => return Ok(Some(at + 1)),
            b'\n' => {
                // A line that begins with a blank would continue the one before it.
                if matches!(next, Some(b' ' | b'\t')) {
                    return Err(Problem::Malformed);
                }
                line_start = at + 1;
            }
            _ => return Err(Problem::Malformed),
        }
    }
    Ok(None)
}

/// What the head says about the length of the body, if it is the head of a knock.
fn body_length(head: &[u8], paths: &[HttpPath]) -> Result<usize, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Problem::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(version_problem(head)),
        Err(_) => return Err(Problem::Malformed),
    }
    if !request.path.is_some_and(|asked| paths.iter().any(|path| path.expose() == asked)) {
        return Err(Problem::NotFound);
    }
    if request.method != Some("POST") {
        return Err(Problem::Method);
    }
    let mut length = None;
    let mut seen = Once::default();
    for header in request.headers.iter() {
        if is(header, "content-length") {
            seen.length()?;
            length = Some(digits(header.value)?);
        } else if is(header, "transfer-encoding") {
            return Err(Problem::Malformed);
        } else if is(header, "host") {
            seen.host()?;
        } else if is(header, "content-type") {
            seen.content_type()?;
            if !says_form(header.value) {
                return Err(Problem::NotAForm);
            }
        }
    }
    length.ok_or(Problem::NoLength)
}

/// `PRI * HTTP/2.0` and the like are another version; `HTTP/abc` is nothing.
fn version_problem(head: &[u8]) -> Problem {
    let mut words = head.split(|&b| b == b'\r').next().unwrap_or_default().split(|&b| b == b' ');
    let (Some(_), Some(_), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Problem::Malformed;
    };
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => Problem::Version,
        Some(_) | None => Problem::Malformed,
    }
}

fn is(header: &httparse::Header<'_>, name: &str) -> bool {
    header.name.eq_ignore_ascii_case(name)
}

/// The headers that may come once only.
#[derive(Default)]
struct Once {
    length: bool,
    host: bool,
    content_type: bool,
}

impl Once {
    fn length(&mut self) -> Result<(), Problem> {
        first(&mut self.length)
    }

    fn host(&mut self) -> Result<(), Problem> {
        first(&mut self.host)
    }

    fn content_type(&mut self) -> Result<(), Problem> {
        first(&mut self.content_type)
    }
}

fn first(seen: &mut bool) -> Result<(), Problem> {
    if std::mem::replace(seen, true) { Err(Problem::Malformed) } else { Ok(()) }
}

/// A length of pure digits; one that no machine can hold is too large, not malformed.
fn digits(value: &[u8]) -> Result<usize, Problem> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Problem::Malformed);
    }
    let text = std::str::from_utf8(value).map_err(|_| Problem::Malformed)?;
    text.parse().map_err(|_| Problem::TooLarge)
}

fn says_form(value: &[u8]) -> bool {
    let kind = value.split(|&b| b == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &str = "app=ssh&access_key=0123456789";

    fn path() -> HttpPath {
        "/step-one".parse().unwrap()
    }

    fn judge_text(text: &str) -> Progress {
        read_request(text.as_bytes(), &[path()], Limits::step1(500))
    }

    fn request(line: &str, headers: &str) -> String {
        format!("{line}\r\n{headers}\r\n{BODY}")
    }

    const LINE: &str = "POST /step-one HTTP/1.1";

    #[test]
    fn a_request_is_done_with_its_last_byte_and_not_before() {
        let text = request(LINE, "Host: h\r\nContent-Length: 29\r\n");
        for end in 0..text.len() {
            assert!(matches!(judge_text(&text[..end]), Progress::NeedMore), "{end}");
        }
        assert!(matches!(judge_text(&text), Progress::Done(form) if form.app == "ssh"));
    }

    #[test]
    fn what_clients_really_send_is_accepted() {
        for (line, headers) in [
            (
                LINE,
                "Host: 192.0.2.1:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Length: 29\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            ),
            ("POST /step-one HTTP/1.0", "Content-Length: 29\r\n"),
            (LINE, "content-LENGTH:29\r\n"),
            (LINE, "Content-Length: 029\r\n"),
            (
                LINE,
                "Content-Type: Application/X-WWW-Form-Urlencoded; charset=utf-8\r\nContent-Length: 29\r\n",
            ),
            (LINE, "Expect: 100-continue\r\nContent-Length: 29\r\n"),
            (LINE, "Connection: keep-alive\r\nContent-Length: 29\r\nUpgrade: h2c\r\n"),
        ] {
            assert!(matches!(judge_text(&request(line, headers)), Progress::Done(_)), "{line} {headers}");
        }
    }

    #[test]
    fn heads_that_are_not_exactly_right_are_refused() {
        use Problem::*;
        const CL: &str = "Content-Length: 29\r\n";
        for (line, headers, want) in [
            ("GET /step-one HTTP/1.1", CL, Method),
            ("post /step-one HTTP/1.1", CL, Method),
            ("PUT /step-one HTTP/1.1", CL, Method),
            ("GET / HTTP/1.1", CL, NotFound),
            ("POST / HTTP/1.1", CL, NotFound),
            ("POST /step-on HTTP/1.1", CL, NotFound),
            ("POST /step-one2 HTTP/1.1", CL, NotFound),
            ("POST /step-one/ HTTP/1.1", CL, NotFound),
            ("POST /Step-one HTTP/1.1", CL, NotFound),
            ("POST //step-one HTTP/1.1", CL, NotFound),
            ("POST /step-one?x HTTP/1.1", CL, NotFound),
            ("POST /step-one#x HTTP/1.1", CL, NotFound),
            ("POST /%73tep-one HTTP/1.1", CL, NotFound),
            ("POST http://h/step-one HTTP/1.1", CL, NotFound),
            ("POST h:80 HTTP/1.1", CL, NotFound),
            ("OPTIONS * HTTP/1.1", CL, NotFound),
            ("POST /step-one HTTP/2.0", CL, Version),
            ("POST /step-one HTTP/0.9", CL, Version),
            ("POST /step-one HTTP/1.2", CL, Version),
            ("PRI * HTTP/2.0", "", Version),
            ("POST /step-one HTTP/1.11", CL, Malformed),
            ("POST /step-one http/1.1", CL, Malformed),
            ("POST /step-one", CL, Malformed),
            ("POST  /step-one HTTP/1.1", CL, Malformed),
            ("POST /step-one  HTTP/1.1", CL, Malformed),
            ("POST\t/step-one HTTP/1.1", CL, Malformed),
            (" POST /step-one HTTP/1.1", CL, Malformed),
            ("\r\nPOST /step-one HTTP/1.1", CL, Malformed),
            ("POST /step-one HTTP/1.1 ", CL, Malformed),
            (LINE, "", NoLength),
            (LINE, "Content-Length: 29\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Content-Length: 29\r\ncontent-length: 30\r\n", Malformed),
            (LINE, "Content-Length: 29, 29\r\n", Malformed),
            (LINE, "Content-Length: +29\r\n", Malformed),
            (LINE, "Content-Length: -29\r\n", Malformed),
            (LINE, "Content-Length: 2 9\r\n", Malformed),
            (LINE, "Content-Length: 0x1d\r\n", Malformed),
            (LINE, "Content-Length: 29.0\r\n", Malformed),
            (LINE, "Content-Length:\r\n", Malformed),
            (LINE, "Content-Length : 29\r\n", Malformed),
            (LINE, "Content-Length: 28\r\n", Malformed),
            (LINE, "Content-Length: 0\r\n", Malformed),
            (LINE, "Content-Length: 501\r\n", TooLarge),
            (LINE, "Content-Length: 99999999999999999999999999\r\n", TooLarge),
            (LINE, "Transfer-Encoding: chunked\r\n", Malformed),
            (LINE, "Transfer-Encoding: identity\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Content-Length: 29\r\ntransfer-encoding: chunked\r\n", Malformed),
            (LINE, "Host: a\r\nHost: a\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Host: a\r\n folded\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Host: a\r\n\tfolded\r\nContent-Length: 29\r\n", Malformed),
            (LINE, " Host: a\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Host: a\nContent-Length: 29\r\n", Malformed),
            (LINE, "Host: a\rContent-Length: 29\r\n", Malformed),
            (LINE, "Host: a\r\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Host: a\0b\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Ho st: a\r\nContent-Length: 29\r\n", Malformed),
            (LINE, ": a\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Host\r\nContent-Length: 29\r\n", Malformed),
            (LINE, "Content-Type: application/json\r\nContent-Length: 29\r\n", NotAForm),
            (LINE, "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 29\r\n", NotAForm),
            (LINE, "Content-Type: application/x-www-form-urlencoded2\r\nContent-Length: 29\r\n", NotAForm),
        ] {
            let text = request(line, headers);
            assert!(
                matches!(judge_text(&text), Progress::Bad(got) if got == want),
                "{text:?}: {:?}",
                judge_text(&text)
            );
        }
    }

    #[test]
    fn bytes_after_the_request_spoil_it() {
        let good = request(LINE, "Content-Length: 29\r\n");
        for tail in ["\r\n", " ", "&x=1", &good] {
            assert!(matches!(judge_text(&format!("{good}{tail}")), Progress::Bad(_)), "{tail:?}");
        }
    }

    #[test]
    fn a_longer_head_a_longer_body_and_a_longer_whole_are_too_large() {
        let sized = |head: usize, body: usize| {
            let fixed = format!("{LINE}\r\nContent-Length: {body}\r\nX: \r\n\r\n").len();
            let filler = "x".repeat(head - fixed);
            format!("{LINE}\r\nContent-Length: {body}\r\nX: {filler}\r\n\r\n")
        };
        let limits = Limits { head: 200, body: 100, total: 250 };
        let problem = |text: String| match read_request(text.as_bytes(), &[path()], limits) {
            Progress::NeedMore => None,
            Progress::Done(_) => panic!("no form in it"),
            Progress::Bad(problem) => Some(problem),
        };
        assert_eq!(problem(sized(200, 50)), None);
        assert_eq!(problem(sized(201, 50)), Some(Problem::HeadTooLarge));
        assert_eq!(problem(sized(150, 100)), None);
        assert_eq!(problem(sized(140, 101)), Some(Problem::TooLarge));
        assert_eq!(problem(sized(200, 51)), Some(Problem::TooLarge));
        assert_eq!(problem(sized(200, 50).split_at(199).0.to_owned()), None);
        assert_eq!(problem(format!("{LINE}\r\nX: {}", "x".repeat(180))), Some(Problem::HeadTooLarge));
    }

    #[test]
    fn too_many_headers_are_too_large_a_head() {
        let text = request(LINE, &format!("{}Content-Length: 29\r\n", "A: b\r\n".repeat(32)));
        assert!(matches!(judge_text(&text), Progress::Bad(Problem::HeadTooLarge)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..60) {
            let good = request(LINE, "Content-Length: 29\r\n");
            let mut bytes = good.into_bytes();
            bytes.truncate(cut);
            bytes.extend(tail);
            let _ = read_request(&bytes, &[path()], Limits::step1(500));
        }

        #[test]
        fn what_was_bad_stays_bad_with_more_bytes(
            text in "[A-Z]{1,4} /[a-z-]{1,9} HTTP/1\\.[01]\r?\n([A-Z]: [a-z ]{0,5}\r?\n){0,3}\r?\n",
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = text.into_bytes();
            if matches!(read_request(&bytes, &[path()], Limits::step1(500)), Progress::Bad(_)) {
                bytes.extend(tail);
                prop_assert!(matches!(read_request(&bytes, &[path()], Limits::step1(500)), Progress::Bad(_)));
            }
        }
    }
}
