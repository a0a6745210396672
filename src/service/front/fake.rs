//! What the tests of both listeners need: an enforcer that says what it is told to, and settings.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::{Global, Settings, Step1Reply, TwoFactorStep};
use crate::knock::Attempt;
use crate::service::link::{self, Answer, Ask, Front};
use crate::units::{Automaton, Lifetime};

pub(super) const FORM: &str = "app=ssh&access_key=0123456789";

/// What has been asked so far.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Vec<Attempt>>>);

impl Asked {
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(super) fn last(&self) -> Attempt {
        self.0.lock().unwrap().last().cloned().unwrap()
    }

    /// Waits until so many have been asked.
    pub(super) async fn wait_for(&self, count: usize) {
        for _ in 0..200 {
            if self.count() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("asked {} times, not {count}", self.count());
    }
}

/// An enforcer that gives this answer to everybody.
pub(super) fn enforcer(answer: Answer) -> (Front, Asked) {
    let (front, mut asks) = link::pair();
    let asked = Asked::default();
    let record = asked.clone();
    tokio::spawn(async move {
        while let Some(pending) = asks.recv().await {
            let (Ask::Knock(attempt), back) = pending.split();
            record.0.lock().unwrap().push(attempt);
            let _ = back.send(answer);
        }
    });
    (front, asked)
}

pub(in crate::service) fn settings(step1_reply: Step1Reply) -> Settings {
    let global = Global {
        http_post_path: "/one".parse().unwrap(),
        path_rotation: None,
        step1_paths: vec!["/one".parse().unwrap()],
        https_post_path: "/two".parse().unwrap(),
        step1_2_rate_limit_per_minute: 20,
        interface_ext: Vec::new(),
        interface_int: Vec::new(),
        two_factor_folder: None,
        two_factor_step: TwoFactorStep::Http,
        token_window: Lifetime::from_secs(60).unwrap(),
        healthcheck_app_name: None,
        users_folder: None,
        lockout: None,
        step1_proof: crate::config::Step1Proof::Accept,
        steps: true,
        knock_log: crate::config::KnockLog::default(),
        step1_reply,
        step1_max_bytes: 500,
        step1_segments: 3,
        mark: None,
        ipv6_prefix: 128,
        adopt_established: true,
        default_input: crate::config::DefaultInput::Accept,
        state_file: None,
        allow: Vec::new(),
        proxy: None,
    };
    Settings {
        global,
        apps: Vec::new(),
        users: Vec::new(),
        notify: crate::config::Notify::default(),
        metrics: crate::config::Metrics::default(),
        sequences: Vec::new(),
        automaton: Automaton::default(),
        time_sequence: None,
    }
}

/// A good request for a path, with these extra headers.
pub(super) fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: gate\r\n{headers}Content-Length: {}\r\n\r\n{FORM}", FORM.len())
}
