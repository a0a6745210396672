//! What a configuration says, as digests that tell two of them apart part by part and keep nothing of what they say.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use crate::config::node::{Kind, Node};
use crate::config::outside::{Outside, SecretFrom, UserFile};
use crate::units::Secret;

type Digest = [u8; SHA256_OUTPUT_LEN];

/// The parts of a configuration (`ssh.duration`) and the files that it takes secrets from, each with a digest of what it
/// says. Comments, spaces and the order of sections are nothing; files of users, which are followed by themselves, neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outline {
    said: BTreeMap<String, Digest>,
    /// The files that files of users take secrets from, which are read whenever those are.
    of_users: SecretsOfUsers,
}

/// The files that files of users and clients take secrets from, each with a digest of what is in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretsOfUsers(BTreeMap<String, Digest>);

impl fmt::Debug for SecretsOfUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretsOfUsers")
    }
}

/// Digests of short values tell them to whoever tries all of them.
impl fmt::Debug for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outline")
    }
}

impl Outline {
    /// The parts that differ, sorted: keys of the file with their section, and names of files.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let differ = |one: &BTreeMap<String, Digest>, two: &BTreeMap<String, Digest>| -> BTreeSet<String> {
            let names = one.keys().chain(two.keys());
            names.filter(|name| one.get(*name) != two.get(*name)).cloned().collect()
        };
        let mut out = differ(&self.said, &other.said);
        out.extend(differ(&self.of_users.0, &other.of_users.0));
        out.into_iter().collect()
    }

    /// Takes over what the files of users name now.
    pub fn take_users(&mut self, of_users: SecretsOfUsers) {
        self.of_users = of_users;
    }

    /// The files that secrets were taken from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let all = self.said.keys().chain(self.of_users.0.keys());
        all.filter(|name| name.starts_with('/')).map(Path::new)
    }

    /// Takes in a document that has sections.
    pub(super) fn take(&mut self, document: &Node) {
        let Kind::Map(sections) = &document.kind else { return };
        for (name, section) in sections {
            let Kind::Text(name) = &name.kind else { continue };
            let Kind::Map(keys) = &section.kind else {
                self.said.insert(name.to_string(), digest_of(section));
                continue;
            };
            for (key, value) in keys {
                if let Kind::Text(key) = &key.kind {
                    self.said.insert(format!("{}.{}", name.as_str(), key.as_str()), digest_of(value));
                }
            }
        }
    }

    /// Takes in what was read from other files meanwhile, for the configuration itself and for files of users.
    pub(super) fn take_files(&mut self, noted: Noted<'_>, of_users: Noted<'_>) {
        self.said.extend(noted.seen.into_inner());
        self.of_users = of_users.of_users();
    }
}

/// Reads what is outside, and notes what was in files with one secret.
pub(super) struct Noted<'o> {
    outside: &'o dyn Outside,
    seen: RefCell<BTreeMap<String, Digest>>,
}

impl<'o> Noted<'o> {
    pub(super) fn new(outside: &'o dyn Outside) -> Self {
        Self { outside, seen: RefCell::default() }
    }

    /// What was read, as files of users name it.
    pub(super) fn of_users(self) -> SecretsOfUsers {
        SecretsOfUsers(self.seen.into_inner())
    }
}

impl Outside for Noted<'_> {
    fn secret(&self, from: SecretFrom<'_>) -> Result<Secret, String> {
        let secret = self.outside.secret(from)?;
        let name = match from {
            SecretFrom::File(path) => path.display().to_string(),
            SecretFrom::Credential(name) => format!("credential {name}"),
        };
        let mut context = Context::new(&SHA256);
        context.update(secret.expose().as_bytes());
        self.seen.borrow_mut().insert(name, finished(context));
        Ok(secret)
    }

    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
        self.outside.users(folder)
    }

    fn passed_over(&self, folder: &Path) -> Vec<String> {
        self.outside.passed_over(folder)
    }

    fn codes(&self, folder: &Path) -> Result<(), String> {
        self.outside.codes(folder)
    }
}

fn digest_of(node: &Node) -> Digest {
    let mut context = Context::new(&SHA256);
    add(&mut context, node);
    finished(context)
}

fn finished(context: Context) -> Digest {
    // SHA-256 has 32 bytes.
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Each value with its kind and length, so that no two trees are written alike.
fn add(context: &mut Context, node: &Node) {
    let mut put = |kind: u8, bytes: &[u8]| {
        context.update(&[kind]);
        context.update(&bytes.len().to_be_bytes());
        context.update(bytes);
    };
    match &node.kind {
        Kind::Null => put(0, b""),
        Kind::Bool(value) => put(1, &[u8::from(*value)]),
        Kind::Int(value) => put(2, &value.to_be_bytes()),
        Kind::Float => put(3, b""),
        Kind::Text(text) => put(4, text.as_bytes()),
        Kind::List(items) => {
            put(5, &items.len().to_be_bytes());
            items.iter().for_each(|item| add(context, item));
        }
        Kind::Map(entries) => {
            put(6, &entries.len().to_be_bytes());
            for (key, value) in entries {
                add(context, key);
                add(context, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Checked, parse};

    const TEXT: &str = "global:\n  http_post_path: /first-path\n  https_post_path: /second-path\n  interface_ext: eth0\n\
                        ssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [{file: /keys/a}]\n";

    struct One(&'static str);

    impl Outside for One {
        fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
            Ok(Secret::new(self.0.to_owned()))
        }

        fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
            Ok(Vec::new())
        }
    }

    fn outline(text: &str, secret: &'static str) -> Outline {
        let Checked { outline, .. } = parse("x", text, None, &One(secret)).unwrap();
        outline
    }

    #[test]
    fn what_says_something_else_is_named_and_what_it_says_is_not() {
        let before = outline(TEXT, "other-secret");
        let differences = |text: &str, secret| before.differences(&outline(text, secret));
        assert!(differences(TEXT, "other-secret").is_empty());
        let remarked = TEXT.replace("port: 22", "port:   22  # of the daemon");
        assert!(differences(&format!("# a remark\n\n{remarked}"), "other-secret").is_empty());
        assert_eq!(differences(TEXT, "changed-secret"), ["/keys/a"]);
        let changed = TEXT.replace("first-secret", "third-secret").replace("first-path", "third-path");
        assert_eq!(differences(&changed, "other-secret"), ["global.http_post_path", "ssh.access_key_http"]);
        let more = format!("{TEXT}  once: true\n");
        assert_eq!(differences(&more, "other-secret"), ["ssh.once"]);
        assert_eq!(outline(&more, "other-secret").differences(&before), ["ssh.once"]);
        assert_eq!(format!("{before:?}"), "Outline");
    }
}
