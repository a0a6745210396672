//! systemd's watchdog (`WatchdogSec`): fed only while all that lets people in answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::around::Around;
use super::control::{Call, Reply, Request};
use super::health::Part;
use super::metrics::ask;
use crate::sys::notify;

/// The front is asked every five seconds, and one that does not answer is replaced within twenty.
const FRONT: Duration = Duration::from_secs(30);
/// Fed so many times in the time that systemd waits.
const TIMES: u32 = 4;
/// The longest pause between two feedings.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Feeds the watchdog for ever; nothing where systemd does not ask for it.
pub async fn feed(around: Arc<Around>, calls: mpsc::Sender<Call>) {
    let Some(limit) = notify::watchdog() else { return };
    let pause = (limit / TIMES).min(LONGEST_PAUSE);
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        match trouble(&around, &calls, limit.min(FRONT), pause).await {
            None => {
                told = false;
                if let Err(error) = notify::notify("WATCHDOG=1") {
                    tracing::debug!(%error, "the watchdog cannot be fed");
                }
            }
            Some(what) if !told => {
                told = true;
                tracing::error!(
                    what,
                    "the watchdog is not fed: systemd starts the daemon anew if that stays so"
                );
            }
            Some(_) => {}
        }
    }
}

/// What does not answer, if anything: the enforcer, the kernel, the front.
async fn trouble(
    around: &Around,
    calls: &mpsc::Sender<Call>,
    front: Duration,
    patience: Duration,
) -> Option<&'static str> {
    match ask(calls, Request::Health {}, patience).await {
        Some(Reply::Health { problems, .. }) => {
            if problems.iter().any(|problem| problem.part == Part::Kernel) {
                return Some("the kernel does not answer");
            }
        }
        Some(_) | None => return Some("the enforcer does not answer"),
    }
    (!around.known().front_was_heard(front)).then_some("no front answers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::health::Ailment;

    const MOMENT: Duration = Duration::from_millis(50);

    /// An enforcer that says so.
    fn enforcer(problems: Vec<Ailment>) -> mpsc::Sender<Call> {
        let (calls, mut asked) = mpsc::channel::<Call>(4);
        tokio::spawn(async move {
            while let Some(call) = asked.recv().await {
                let problems = problems.clone();
                let _ =
                    call.reply.send(Reply::Health { problems, ports: None, behind: None, by_flags: false });
            }
        });
        calls
    }

    fn ailing(part: Part) -> Vec<Ailment> {
        vec![Ailment { part, message: String::new() }]
    }

    #[tokio::test]
    async fn all_of_enforcer_kernel_and_front_have_to_answer() {
        let around = Around::default();
        let well = enforcer(Vec::new());
        let long = Duration::from_secs(60);
        assert_eq!(trouble(&around, &well, long, MOMENT).await, None, "without steps");
        around.front_begins(false);
        assert_eq!(trouble(&around, &well, long, MOMENT).await, Some("no front answers"));
        around.front_heard();
        assert_eq!(trouble(&around, &well, long, MOMENT).await, None);
        tokio::time::sleep(MOMENT).await;
        assert_eq!(trouble(&around, &well, MOMENT / 10, MOMENT).await, Some("no front answers"));
        let deaf = enforcer(ailing(Part::Kernel));
        assert_eq!(trouble(&around, &deaf, long, MOMENT).await, Some("the kernel does not answer"));
        let other = enforcer(ailing(Part::Configuration));
        assert_eq!(trouble(&around, &other, long, MOMENT).await, None, "a restart would not help");
        let (hung, _asked) = mpsc::channel(1);
        for _ in 0..3 {
            assert_eq!(trouble(&around, &hung, long, MOMENT).await, Some("the enforcer does not answer"));
        }
    }
}
