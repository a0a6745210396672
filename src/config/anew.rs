//! The files of users and clients read anew, beside a configuration that is in force: its own file is not looked at.

use crate::config::app::AppDraft;
use crate::config::conflicts;
use crate::config::global::GlobalDraft;
use crate::config::outline::{Noted, SecretsOfUsers};
use crate::config::outside::Outside;
use crate::config::problem::{Problem, Problems};
use crate::config::report::{Report, Spot};
use crate::config::settings::Settings;
use crate::config::time_sequence::TimeSequenceDraft;
use crate::config::users;

/// Settings whose users and clients are those of their files.
#[derive(Debug)]
pub struct Anew {
    /// All of them; what is not of these files is as it was.
    pub settings: Settings,
    /// What somebody should look at.
    pub warnings: Vec<Problem>,
    /// What else was read.
    pub secrets: SecretsOfUsers,
}

/// Reads the users and clients of settings that are in force anew. `file` is only named in problems.
///
/// # Errors
/// Every problem found, if at least one of them is an error.
pub fn users_anew(file: &str, settings: &Settings, outside: &dyn Outside) -> Result<Anew, Problems> {
    let noted = Noted::new(outside);
    let (mut report, mut of_files) = (Report::default(), Problems { list: Vec::new(), more: 0 });
    let apps: Vec<AppDraft<'_>> = settings.apps.iter().map(AppDraft::again).collect();
    let users = users::again(settings, &apps, &noted, &mut report, &mut of_files);
    conflicts::step1_room(&global(settings), &apps, &users, &mut report);
    let timed = match &settings.time_sequence {
        None => Some(None),
        Some(timed) => {
            let draft = TimeSequenceDraft::again(timed);
            draft.settle(&apps, &noted, &mut report, &mut of_files).map(Some)
        }
    };
    let (mut list, more, failed) = match report.finish(file, "") {
        Ok(warnings) => (warnings, 0, false),
        Err(Problems { list, more }) => (list, more, true),
    };
    let failed = failed || of_files.errors() > 0;
    list.extend(of_files.list);
    match (users.list, timed) {
        (Some(users), Some(time_sequence)) if !failed => Ok(Anew {
            settings: Settings { users, time_sequence, ..settings.clone() },
            warnings: list,
            secrets: noted.of_users(),
        }),
        (Some(_) | None, _) => Err(Problems { list, more: more + of_files.more }),
    }
}

/// What the room of a request depends on.
fn global(settings: &Settings) -> GlobalDraft<'_> {
    let of = &settings.global;
    let spot = Spot::elsewhere("global.http_post_path");
    let step1 = Some((of.http_post_path.clone(), spot, of.step1_max_bytes));
    let mut draft = GlobalDraft { step1: step1.filter(|_| of.steps), ..GlobalDraft::unknown() };
    draft.follow(of.path_rotation.as_ref());
    draft
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;
    use crate::config::{SecretFrom, UserFile, parse};
    use crate::units::Secret;

    /// A folder of users and one of clients, as names and texts.
    #[derive(Default)]
    struct Folders(RefCell<[Vec<(&'static str, String)>; 2]>);

    impl Outside for Folders {
        fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
            Ok(Secret::new("a-key-in-a-file".to_owned()))
        }

        fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
            let files = self.0.borrow();
            let files = if folder.ends_with("users") { &files[0] } else { &files[1] };
            let file = |(name, text): &(&str, String)| UserFile {
                name: (*name).to_owned(),
                file: format!("{name}.yaml"),
                text: text.clone().into(),
            };
            Ok(files.iter().map(file).collect())
        }

        fn passed_over(&self, _: &Path) -> Vec<String> {
            vec!["/users/bob.yml".to_owned()]
        }
    }

    const TEXT: &str = "global:\n  http_post_path: /first-path\n  https_post_path: /second-path\n  interface_ext: eth0\n  \
        users: {carol: {access_key_http: carols-first-key, access_key_https: carols-second-key}}\n  users_folder: /users\n  \
        time_sequence: {clients: /clients}\nssh:\n  port: 22\n  duration: 1h\n";

    fn user(name: &str, more: &str) -> String {
        format!("access_key_http: {name}-first-key\naccess_key_https: {name}-second-key\n{more}")
    }

    fn client(more: &str) -> String {
        format!("app: ssh\nsecret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA\n{more}")
    }

    #[test]
    fn users_and_clients_are_those_of_their_files_as_if_all_was_read_anew() {
        let folders = Folders::default();
        *folders.0.borrow_mut() = [vec![("alice", user("alice", ""))], vec![("phone", client(""))]];
        let before = parse("x", TEXT, None, &folders).unwrap_or_else(|e| panic!("{e}"));
        let told = |list: &[Problem]| list.iter().any(|one| one.message.contains("bob.yml is not read"));
        assert!(told(&before.warnings));

        let bob = "access_key_http: {file: /bob}\naccess_key_https: bobby-second-key\n".to_owned();
        *folders.0.borrow_mut() = [
            vec![("alice", user("alice", "disabled: true\n")), ("bob", bob)],
            vec![("phone", client("disabled: true\n"))],
        ];
        let anew = users_anew("x", &before.settings, &folders).unwrap_or_else(|e| panic!("{e}"));
        let whole = parse("x", TEXT, None, &folders).unwrap();
        assert_eq!(format!("{:?}", anew.settings), format!("{:?}", whole.settings));
        assert!(told(&anew.warnings));
        assert_eq!(before.outline.differences(&whole.outline), ["/bob"]);
        let mut outline = before.outline.clone();
        outline.take_users(anew.secrets);
        assert!(outline.differences(&whole.outline).is_empty());

        *folders.0.borrow_mut() = [Vec::new(), Vec::new()];
        let users = users_anew("x", &anew.settings, &folders).unwrap().settings.users;
        assert_eq!(users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["carol"]);
    }

    #[test]
    fn what_is_wrong_beside_what_is_in_force_is_refused() {
        let folders = Folders::default();
        let before = parse("x", TEXT, None, &folders).unwrap().settings;
        for (name, text, wrong) in [
            ("carol", user("other", ""), "there is a user `carol`"),
            ("alice", user("carols", ""), "is one of carol too"),
            ("alice", user("alice", "apps: [web]\n"), "there is no app `web`"),
            ("alice", user("alice", "duration: 2h\n"), "longer than max_duration"),
            ("alice", user(&"\u{e4}".repeat(39), ""), "needs"),
        ] {
            *folders.0.borrow_mut() = [vec![(name, text)], Vec::new()];
            let told = users_anew("x", &before, &folders).unwrap_err().to_string();
            assert!(told.contains(wrong), "{wrong}: {told}");
        }
    }
}
