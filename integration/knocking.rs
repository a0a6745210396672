use std::net::IpAddr;

use crate::configuration::{STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::namespace::Namespace;
use crate::server::in_url;

/// The port of step 1 in every test.
pub const STEP1_PORT: u16 = 8080;
/// The port of step 2 in every test.
pub const STEP2_PORT: u16 = 8443;

/// curl's exit code for "nothing came back in time".
pub const TIMED_OUT: i32 = 28;

/// The form of an app's request.
pub fn form(app: &str, key: &str) -> String {
    format!("app={app}&access_key={key}")
}

/// Posts to the step-1 port and stops the test unless curl hears nothing within a second.
#[track_caller]
pub fn post_step1(from: &Namespace, to: IpAddr, path: &str, form: &str) {
    let url = format!("http://{}:{STEP1_PORT}{path}", in_url(to));
    from.run("curl", &["-sS", "-g", "-m", "1", "-d", form, &url]).exits(TIMED_OUT);
}

/// The right step 1 of an app.
#[track_caller]
pub fn step1(from: &Namespace, to: IpAddr, app: &str) {
    post_step1(from, to, STEP1_PATH, &form(app, &http_key(app)));
}

/// What step 2 answered; none when it could not be reached or said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Posts to the step-2 port.
pub fn post_step2(from: &Namespace, to: IpAddr, path: &str, form: &str, more: &[&str]) -> Option<Reply> {
    let url = format!("https://{}:{STEP2_PORT}{path}", in_url(to));
    let mut args = vec!["-sS", "-k", "-g", "-i", "-m", "8", "--connect-timeout", "2", "-d", form];
    args.extend(more);
    args.push(&url);
    let done = from.run("curl", &args);
    if done.code != Some(0) {
        return None;
    }
    Some(parse_reply(&done.text()))
}

/// Takes an HTTP/1.1 answer apart.
#[track_caller]
pub fn parse_reply(text: &str) -> Reply {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not an answer: {text}"));
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// The right step 2 of an app.
pub fn step2(from: &Namespace, to: IpAddr, app: &str) -> Option<Reply> {
    post_step2(from, to, STEP2_PATH, &form(app, &https_key(app)), &[])
}

/// Stops the test unless step 2 opens the app.
#[track_caller]
pub fn assert_step2_opens(from: &Namespace, to: IpAddr, app: &str) {
    let reply = step2(from, to, app).expect("an answer of step 2");
    assert_eq!((reply.status, reply.body.as_str()), (200, "OK\n"), "{}", reply.head);
}

/// Stops the test unless step 2 answers with this status.
#[track_caller]
pub fn assert_step2_answers(reply: Option<Reply>, status: u16) {
    let reply = reply.expect("an answer of step 2");
    assert_eq!(reply.status, status, "{}\n{}", reply.head, reply.body);
}

/// Both steps of an app.
#[track_caller]
pub fn knock(from: &Namespace, to: IpAddr, app: &str) {
    step1(from, to, app);
    assert_step2_opens(from, to, app);
}

/// A request head and body as bytes, framed correctly.
pub fn request(method_and_path: &str, form: &str) -> String {
    format!(
        "{method_and_path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    )
}
