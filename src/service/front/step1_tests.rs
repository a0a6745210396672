use super::*;
use crate::knock::Credential;
use crate::service::front::fake::{Asked, FORM, enforcer, post, settings};
use crate::service::front::{Reach, bind_step1};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn start(reply: Step1Reply, answer: Answer) -> (SocketAddr, Asked) {
    let (link, asked) = enforcer(answer);
    let listener = bind_step1(0, Reach::Everybody).unwrap();
    let at = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()).into();
    let (_, config) = watch::channel(Arc::new(Step1Config::of(&settings(reply))));
    tokio::spawn(serve_step1(listener, config, link));
    (at, asked)
}

#[tokio::test]
async fn the_next_connection_meets_what_is_configured_by_then() {
    let (link, asked) = enforcer(Answer::Opened);
    let listener = bind_step1(0, Reach::Everybody).unwrap();
    let at = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()).into();
    let mut changed = settings(Step1Reply::Silent);
    let (change, config) = watch::channel(Arc::new(Step1Config::of(&changed)));
    tokio::spawn(serve_step1(listener, config, link));

    let mut begun = connected(at).await;
    begun.write_all(post("/one", "").split_at(10).0.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    changed.global.step1_paths = vec!["/other".parse().unwrap()];
    change.send(Arc::new(Step1Config::of(&changed))).unwrap();
    for (path, count) in [("/one", 0), ("/other", 1)] {
        let mut stream = connected(at).await;
        stream.write_all(post(path, "").as_bytes()).await.unwrap();
        assert!(ended_in_silence(&mut stream).await);
        assert_eq!(asked.count(), count, "{path}");
    }
    begun.write_all(post("/one", "").split_at(10).1.as_bytes()).await.unwrap();
    assert!(ended_in_silence(&mut begun).await);
    assert_eq!(asked.count(), 2, "what began before goes on as it began");
}

async fn connected(at: SocketAddr) -> TcpStream {
    TcpStream::connect(at).await.unwrap()
}

/// Whether the connection ended in a reset and without a byte.
async fn ended_in_silence(stream: &mut TcpStream) -> bool {
    let mut heard = Vec::new();
    let end = stream.read_to_end(&mut heard).await;
    heard.is_empty() && end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn right_and_wrong_alike_end_in_silence_and_only_the_right_is_asked() {
    for answer in [Answer::Opened, Answer::Refused] {
        let (at, asked) = start(Step1Reply::Silent, answer);
        let good = post("/one", "");
        let mut right = connected(at).await;
        right.write_all(good.as_bytes()).await.unwrap();
        assert!(ended_in_silence(&mut right).await);
        asked.wait_for(1).await;
        let attempt = asked.last();
        assert_eq!((attempt.step, attempt.client.to_string().as_str()), (Step::One, "127.0.0.1"));
        assert_eq!(attempt.app, "ssh");
        assert!(matches!(&attempt.credential, Credential::Key(key) if key.expose() == "0123456789"));

        for wrong in [
            post("/two", ""),
            post("/one/", ""),
            post("/one", "Transfer-Encoding: chunked\r\n"),
            good.replace("POST", "GET"),
            good.replace("POST", "post"),
            good.replace("access_key", "access-key"),
            format!("{good}{good}"),
            format!("{good}\r\n"),
            post("/one", &format!("X: {}\r\n", "x".repeat(500))),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned(),
        ] {
            let mut stream = connected(at).await;
            stream.write_all(wrong.as_bytes()).await.unwrap();
            assert!(ended_in_silence(&mut stream).await, "{wrong}");
        }
        assert_eq!(asked.count(), 1);
    }
}

#[tokio::test]
async fn a_request_in_pieces_is_one_request() {
    let (at, asked) = start(Step1Reply::Silent, Answer::Opened);
    let mut stream = connected(at).await;
    stream.set_nodelay(true).unwrap();
    let good = post("/one", "");
    let (head, body) = good.split_at(good.len() - FORM.len());
    for piece in [head, &body[..3], &body[3..]] {
        assert_eq!(asked.count(), 0);
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(ended_in_silence(&mut stream).await);
    assert_eq!(asked.count(), 1);
}

#[tokio::test]
async fn bytes_count_over_the_whole_connection() {
    let (at, asked) = start(Step1Reply::Silent, Answer::Opened);
    let mut stream = connected(at).await;
    let filler = post("/one", &format!("X: {}\r\n", "x".repeat(500)));
    for piece in filler.as_bytes().chunks(200) {
        let _ = stream.write_all(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ended_in_silence(&mut stream).await);
    assert_eq!(asked.count(), 0);
}

#[tokio::test]
async fn a_half_closed_stream_opens_nothing_and_ends_in_silence() {
    let (at, asked) = start(Step1Reply::Silent, Answer::Opened);
    let good = post("/one", "");
    for part in ["", &good[..20], &good[..good.len() - 1]] {
        let mut stream = connected(at).await;
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(ended_in_silence(&mut stream).await, "{part}");
    }
    assert_eq!(asked.count(), 0);
}

#[tokio::test]
async fn a_slow_sender_is_cut_off_in_silence() {
    let (at, asked) = start(Step1Reply::Silent, Answer::Opened);
    let begun = Instant::now();
    let (mut idle, mut slow) = (connected(at).await, connected(at).await);
    idle.write_all(b"P").await.unwrap();
    let good = post("/one", "");
    let dribble = async {
        for byte in good.as_bytes().chunks(1).cycle() {
            if slow.write_all(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (quiet, ()) = tokio::join!(ended_in_silence(&mut idle), dribble);
    assert!(quiet);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(asked.count(), 0);
}

#[tokio::test]
async fn idle_connections_of_one_address_push_out_only_their_own() {
    let (at, asked) = start(Step1Reply::Silent, Answer::Opened);
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(connected(at).await);
        idle.last_mut().unwrap().write_all(b"P").await.unwrap();
    }
    let mut right = connected(at).await;
    right.write_all(post("/one", "").as_bytes()).await.unwrap();
    assert!(ended_in_silence(&mut right).await);
    asked.wait_for(1).await;
    assert!(ended_in_silence(&mut idle[0]).await, "the oldest is gone at once");
}

#[tokio::test]
async fn who_sends_nothing_takes_nobody_s_place() {
    let (at, asked) = start(Step1Reply::Http, Answer::Opened);
    let good = post("/one", "");
    let (head, rest) = good.split_at(10);
    let mut right = connected(at).await;
    right.write_all(head.as_bytes()).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(connected(at).await);
    }
    right.write_all(rest.as_bytes()).await.unwrap();
    let mut heard = String::new();
    right.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
    assert_eq!(asked.count(), 1);
}

#[tokio::test]
async fn the_other_variant_answers_those_who_know_the_path() {
    let good = post("/one", "");
    for (answer, request, status) in [
        (Answer::Opened, good.clone(), "200 OK"),
        (Answer::Refused, good.clone(), "403 Forbidden"),
        (Answer::TooMany, good.clone(), "429 Too Many Requests"),
        (Answer::Unavailable, good.clone(), "503 Service Unavailable"),
        (Answer::Opened, good.replace("app=ssh", "app=   "), "400 Bad Request"),
        (Answer::Opened, format!("{good}{good}"), "400 Bad Request"),
        (Answer::Opened, good.replace("/one", "/two"), "404 Not Found"),
        (Answer::Opened, good.replace("POST", "GET"), "405 Method Not Allowed"),
    ] {
        let (at, _asked) = start(Step1Reply::Http, answer);
        let mut stream = connected(at).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {heard}");
    }
}

#[tokio::test]
async fn the_other_variant_says_nothing_to_who_sends_nothing() {
    let (at, _asked) = start(Step1Reply::Http, Answer::Opened);
    let mut stream = connected(at).await;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"");
}

#[tokio::test]
async fn the_other_variant_says_when_it_was_too_slow() {
    let (at, asked) = start(Step1Reply::Http, Answer::Opened);
    let mut stream = connected(at).await;
    stream.write_all(b"POST /one HT").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    assert_eq!(asked.count(), 0);
}
