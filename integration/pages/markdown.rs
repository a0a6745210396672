//! Reads a page: its fenced blocks, and what their info strings say is to be done with them.
//!
//! The first word is the language; then come `name`, `name=value` or `name="several words"`:
//!
//! | | |
//! |---|---|
//! | `on=HOST` | the block is typed at a shell of that host |
//! | `fails=N` | and ends with this exit code |
//! | `background` | and goes on while the page does |
//! | `interrupts` | after Ctrl-C to what goes on |
//! | `terminal` | it asks at the terminal: the next block is what is seen there, with what is typed behind the questions, `]: ` |
//! | `pasted="heading"` | it stands below a line that begins so in what a terminal showed, and is taken from there |
//! | `listens=PORT` | the next block waits until that TCP port of the host listens |
//! | `file=PATH` | the block is the whole of that file `on=HOST`; its folder is there already |
//! | `output` | the block before printed this; `...` stands for anything |
//! | `check` | the block is a whole configuration, which `check-config` takes |
//! | `part` | it is part of one: shown, and not looked at |
//! | `not-run="reason"` | the block cannot be run by a test |

use std::fmt;

/// Languages whose blocks must say what is to be done with them.
const MUST_SAY: &[&str] = &["sh", "bash", "yaml", "powershell"];
const NAMES: &[&str] = &[
    "on",
    "fails",
    "background",
    "listens",
    "interrupts",
    "terminal",
    "pasted",
    "file",
    "output",
    "check",
    "part",
    "not-run",
];

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its first fence, from 1.
    pub line: usize,
    pub text: String,
    pub task: Task,
}

/// What is to be done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Typed at a shell.
    Run { on: String, exits: i32, background: bool, listens: Option<u16>, interrupts: bool },
    /// Typed at a terminal, where it asks.
    Terminal { on: String },
    /// Typed as a terminal showed it below the line that begins so.
    Pasted { on: String, below: String },
    /// Written into a file.
    File { on: String, path: String },
    /// Compared with what the block before printed.
    Output,
    /// Given to `check-config`.
    Check,
    /// Only shown.
    Shown,
    /// Cannot be run, for this reason.
    NotRun(String),
}

/// What is wrong with a page, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The blocks of a page, in their order.
pub fn blocks(page: &str) -> Result<Vec<Block>, Mistake> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let trimmed = line.trim_start();
        let Some(info) = trimmed.strip_prefix("```") else { continue };
        let mistake = |what: String| Mistake { line: at + 1, what };
        let indent = line.len() - trimmed.len();
        let mut text = String::new();
        loop {
            let Some((_, line)) = lines.next() else { return Err(mistake("the block never ends".into())) };
            if line.trim() == "```" {
                break;
            }
            let spaces = line.len() - line.trim_start_matches(' ').len();
            text.push_str(line.get(indent.min(spaces)..).unwrap_or_default());
            text.push('\n');
        }
        let after_run = matches!(
            blocks.last(),
            Some(Block {
                task: Task::Run { background: false, .. } | Task::Terminal { .. } | Task::Pasted { .. },
                ..
            })
        );
        let task = task(info.trim(), after_run).map_err(mistake)?;
        blocks.push(Block { line: at + 1, text, task });
    }
    Ok(blocks)
}

/// The blocks of a page that is to be followed: at least one of them is run.
pub fn steps(page: &str) -> Result<Vec<Block>, Mistake> {
    let blocks = blocks(page)?;
    if blocks.iter().any(|block| matches!(block.task, Task::Run { .. } | Task::Check)) {
        Ok(blocks)
    } else {
        Err(Mistake { line: 1, what: "no block of this page is executed".into() })
    }
}

fn task(info: &str, after_run: bool) -> Result<Task, String> {
    let (language, rest) = info.split_once(char::is_whitespace).unwrap_or((info, ""));
    let said = attributes(rest)?;
    if let Some((name, _)) = said.iter().find(|(name, _)| !NAMES.contains(&name.as_str())) {
        return Err(format!("`{name}` means nothing here"));
    }
    let has = |name: &str| said.iter().any(|(n, _)| n == name);
    let value = |name: &str| said.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.clone());
    let only = |names: &[&str]| said.iter().all(|(n, _)| names.contains(&n.as_str()));
    let task = if let Some(reason) = value("not-run") {
        only(&["not-run"]).then_some(Task::NotRun(reason))
    } else if has("output") {
        if !after_run {
            return Err("output of what? no block that is run comes before".into());
        }
        only(&["output"]).then_some(Task::Output)
    } else if has("check") {
        only(&["check"]).then_some(Task::Check)
    } else if has("part") {
        only(&["part"]).then_some(Task::Shown)
    } else if let (Some(path), Some(on)) = (value("file"), value("on")) {
        only(&["file", "on"]).then_some(Task::File { on, path })
    } else if let (Some(below), Some(on)) = (value("pasted"), value("on")) {
        only(&["pasted", "on"]).then_some(Task::Pasted { on, below })
    } else if let (true, Some(on)) = (has("terminal"), value("on")) {
        only(&["terminal", "on"]).then_some(Task::Terminal { on })
    } else if let Some(on) = value("on") {
        let number = |name: &str| {
            value(name).map(|text| text.parse().map_err(|_| format!("`{name}={text}` is no number")))
        };
        let exits = number("fails").transpose()?.unwrap_or(0);
        let listens = number("listens").transpose()?.map(|port: i32| u16::try_from(port));
        let listens = listens.transpose().map_err(|_| "no such port".to_owned())?;
        let fits =
            only(&["on", "fails", "background", "listens", "interrupts"]) && has("fails") == (exits != 0);
        fits.then_some(Task::Run {
            on,
            exits,
            background: has("background"),
            listens,
            interrupts: has("interrupts"),
        })
    } else if said.is_empty() && !MUST_SAY.contains(&language) {
        Some(Task::Shown)
    } else {
        return Err(format!(
            "where is it run? `{language}` wants on=, file= with on=, check, part or not-run="
        ));
    };
    task.ok_or_else(|| format!("`{rest}`: these do not go together"))
}

fn attributes(mut rest: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(found);
        }
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let value;
        if let Some(quoted) = behind.strip_prefix("=\"") {
            let (text, behind) = quoted.split_once('"').ok_or("a quote never ends")?;
            (value, rest) = (Some(text.to_owned()), behind);
        } else if let Some(plain) = behind.strip_prefix('=') {
            let end = plain.find(char::is_whitespace).unwrap_or(plain.len());
            let (text, behind) = plain.split_at(end);
            (value, rest) = (Some(text.to_owned()), behind);
        } else {
            (value, rest) = (None, behind);
        }
        if found.iter().any(|(n, _)| n == name) || value.as_deref() == Some("") {
            return Err(format!("`{name}` twice, or without a value"));
        }
        found.push((name.to_owned(), value));
    }
}

/// What is asked and what is typed, in what is seen at a terminal: questions end with `]: `, and the answer follows; one for a
/// code of an authenticator app is answered by the code of that moment.
pub fn talk(seen: &str) -> Vec<(String, String)> {
    const CODE: &str = "the app shows:";
    let asked = |line: &str| {
        if let Some((question, _)) = line.split_once(CODE) {
            return Some((format!("{question}{CODE}"), "{code}".to_owned()));
        }
        let (question, typed) = line.split_once("]:")?;
        Some((format!("{question}]:"), typed.trim().to_owned()))
    };
    seen.lines().filter_map(asked).collect()
}

/// The lines of a text from below the one that begins so to the next empty one.
pub fn below(text: &str, heading: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(heading));
    lines.next()?;
    Some(lines.take_while(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect())
}

/// Whether what was printed is what the page shows: `...` in a line stands for anything in that line, a line that is
/// `...` for any lines.
pub fn matches(shown: &str, printed: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
    like(&lines(shown), &lines(printed))
}

fn like(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == "..." => {
            (0..=printed.len()).any(|n| like(rest, printed.get(n..).unwrap_or_default()))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, behind)| line_matches(first, line) && like(rest, behind)),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let mut pieces = shown.split("...");
    let Some(mut rest) = pieces.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(page: &str) -> Vec<Task> {
        blocks(page).unwrap().into_iter().map(|block| block.task).collect()
    }

    fn wrong(page: &str) -> String {
        blocks(page).unwrap_err().to_string()
    }

    fn run(on: &str) -> Task {
        Task::Run { on: on.into(), exits: 0, background: false, listens: None, interrupts: false }
    }

    #[test]
    fn blocks_say_where_they_run_and_what_comes_of_it() {
        assert_eq!(of("a\n```sh on=gateway\nls\n```\n"), [run("gateway")]);
        assert_eq!(
            of("```sh on=client fails=28\ncurl\n```\n```text output\n...\n```"),
            [
                Task::Run {
                    on: "client".into(),
                    exits: 28,
                    background: false,
                    listens: None,
                    interrupts: false
                },
                Task::Output
            ]
        );
        assert_eq!(
            of("```sh on=lan background listens=80\nserve\n```"),
            [Task::Run {
                on: "lan".into(),
                exits: 0,
                background: true,
                listens: Some(80),
                interrupts: false
            }]
        );
        assert_eq!(
            of("```yaml file=~/a.yaml on=client\na: 1\n```\n```yaml check\n```\n```yaml part\n```"),
            [Task::File { on: "client".into(), path: "~/a.yaml".into() }, Task::Check, Task::Shown]
        );
        assert_eq!(of("```sh not-run=\"takes an hour\"\n```"), [Task::NotRun("takes an hour".into())]);
        assert_eq!(of("```\na picture\n```\n```ini\n[a]\n```"), [Task::Shown, Task::Shown]);
    }

    #[test]
    fn a_block_keeps_its_lines_without_the_indentation_of_its_fence() {
        let found = blocks("1. first\n\n   ```sh on=a\n   if x\n     then y\n   ```\n").unwrap();
        assert_eq!(found[0].text, "if x\n  then y\n");
        assert_eq!(found[0].line, 3);
    }

    #[test]
    fn what_nobody_would_carry_out_is_a_mistake() {
        assert!(wrong("x\n\n```sh\nls\n```").starts_with("line 3: where is it run?"));
        assert!(wrong("```yaml\n```").contains("where is it run?"));
        assert!(wrong("```sh file=/a\n```").contains("where is it run?"));
        assert!(wrong("```sh on=a colour=red\n```").contains("`colour` means nothing"));
        assert!(wrong("```sh on=a on=b\n```").contains("twice"));
        assert!(wrong("```sh on=\n```").contains("without a value"));
        assert!(wrong("```sh on=a fails=0\n```").contains("do not go together"));
        assert!(wrong("```sh on=a fails=many\n```").contains("is no number"));
        assert!(wrong("```sh on=a not-run=\"b\"\n```").contains("do not go together"));
        assert!(wrong("```sh not-run=\"b\n```").contains("never ends"));
        assert!(wrong("```text output\n```").contains("output of what?"));
        assert!(wrong("```sh on=a\nls\n").contains("never ends"));
    }

    #[test]
    fn a_page_to_follow_has_something_to_do() {
        assert!(steps("# Nothing\n\n```text\npicture\n```").unwrap_err().to_string().contains("no block"));
        assert!(steps("```sh not-run=\"because\"\n```").is_err());
        assert!(steps("```sh on=a\n```").is_ok());
    }

    #[test]
    fn a_conversation_is_read_from_what_is_seen() {
        let found =
            of("```sh on=a terminal\ninit\n```\n```text output\nPort [22]:\nHost [x]: y.example\nbye\n```");
        assert_eq!(found, [Task::Terminal { on: "a".into() }, Task::Output]);
        let pair = |asked: &str, typed: &str| (asked.to_owned(), typed.to_owned());
        assert_eq!(
            talk("Port [22]:\nHost [x]: y.example\nbye"),
            [pair("Port [22]:", ""), pair("Host [x]:", "y.example")]
        );
        assert_eq!(
            talk("the code that the app shows: ..."),
            [pair("the code that the app shows:", "{code}")]
        );
        let pasted = of("```sh on=a pasted=\"Or with curl\"\ncurl ...\n```");
        assert_eq!(pasted, [Task::Pasted { on: "a".into(), below: "Or with curl".into() }]);
        assert_eq!(below("x\nOr with curl, so:\n1\n2\n\n3", "Or with").as_deref(), Some("1\n2\n"));
        assert_eq!(below("x", "Or"), None);
        assert!(wrong("```sh on=a terminal fails=1\n```").contains("do not go together"));
    }

    #[test]
    fn three_dots_stand_for_anything() {
        assert!(matches("OK\n", "OK\n\n"));
        assert!(matches("a ... c", "a b c"));
        assert!(matches("a\n...\nd", "a\nb\nc\nd") && matches("...\nd", "d"));
        assert!(matches("x...y...z", "x1y2z"));
        assert!(!matches("OK", "NOT OK") && !matches("OK", "OK\nmore") && !matches("a...b", "ac"));
        assert!(!matches("...\nd", "a\nb") && !matches("a", ""));
    }
}
