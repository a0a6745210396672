use super::*;

const LEAST: &str =
    "host: gate.example.com\nhttp_post_path: /first-one-4711\nhttps_post_path: /second-one-0815\napp: ssh\n";

fn read(more: &str) -> Result<(Profile, Vec<Problem>), Problems> {
    steps("home.yaml", &format!("{LEAST}{more}"))
}

fn steps(file: &str, text: &str) -> Result<(Profile, Vec<Problem>), Problems> {
    match parse_profile(file, text, Some(Path::new("/home/alice")))? {
        (Way::Steps(profile), warnings) => Ok((*profile, warnings)),
        (Way::Knocks(_), _) => panic!("{text}"),
    }
}

fn profile(more: &str) -> Profile {
    read(more).unwrap().0
}

#[test]
fn what_is_not_said_has_defaults() {
    let least = profile("");
    assert_eq!((least.http_port, least.https_port), (80, 443));
    assert_eq!((least.step1, &least.key_http), (Step1Form::Key, &SecretSource::Prompt));
    assert_eq!((least.trust, least.families), (Trust::System, Families::Both));
    assert_eq!((least.codes, least.code_step.is_none()), (CodeSource::Prompt, true));
    assert_eq!(profile("user: alice\n").step1, Step1Form::Proof, "a user does not send the key");
}

#[test]
fn secrets_have_one_place_each() {
    let all = profile(
        "access_key_http: {file: ~/keys/one}\naccess_key_https: {command: [pass, show, two]}\ntotp: {command: [oath, code]}\n",
    );
    assert_eq!(all.key_http, SecretSource::File("/home/alice/keys/one".into()));
    assert_eq!(all.key_https, SecretSource::Command(vec!["pass".into(), "show".into(), "two".into()]));
    assert_eq!(profile("access_key_http: {keyring: home}\n").key_http, SecretSource::Keyring("home".into()));
    for bad in [
        "access_key_http: {file: /a, keyring: b}\n",
        "access_key_http: {}\n",
        "access_key_http: {my-secret-key-itself: 1}\n",
        "access_key_http: {file: relative}\n",
        "access_key_http: {command: pass show two}\n",
        "totp: JBSWY3DPEHPK3PXP\n",
    ] {
        let problems = read(bad).unwrap_err();
        assert_eq!(problems.list.len(), 1, "{bad}");
        let text = problems.list[0].to_string();
        assert!(text.starts_with("home.yaml:5:"), "{text}");
        assert!(!text.contains("my-secret-key"), "{text}");
    }
}

#[test]
fn a_secret_of_one_time_codes_in_a_file_is_warned_about() {
    let (_, warnings) = read("totp: {secret: JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP}\n").unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(!format!("{warnings:?}").contains("JBSW"), "{warnings:?}");
}

#[test]
fn pins_are_read_as_openssl_and_curl_write_them() {
    let zeros = [0; 32];
    let colons = vec!["00"; 32].join(":");
    for text in ["00".repeat(32), colons, format!("sha256//{}=", "A".repeat(43))] {
        assert_eq!(profile(&format!("pin: \"{text}\"\n")).trust, Trust::Pins(vec![zeros]), "{text}");
    }
    for bad in ["0".repeat(63), "g".repeat(64), "sha256//AAAA".to_owned(), format!("+{}", "0".repeat(63))] {
        assert!(read(&format!("pin: \"{bad}\"\n")).is_err(), "{bad}");
    }
    assert!(read(&format!("pin: \"{}\"\nca: /ca.pem\n", "00".repeat(32))).is_err());
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_without_secrets() {
    for (more, place) in [
        ("http_prot: 80\n", "5:1"),
        ("step1: proof\n", "5:8"),
        ("family: 5\n", "5:9"),
        ("duration: ever\n", "5:11"),
        ("check: 70000\n", "5:8"),
        ("proof_address: here\n", "5:16"),
    ] {
        let text = read(more).unwrap_err().list[0].to_string();
        assert!(text.starts_with(&format!("home.yaml:{place}: error: ")), "{text}");
    }
    let text =
        format!("{:?}", parse_profile("x", "host: a\nhttp_post_path: secret path\n", None).unwrap_err());
    assert!(!text.contains("secret path"), "{text}");
    assert!(read("host: \"[::1]\"\n").is_err() && read("host: a b\n").is_err());
}

#[test]
fn the_example_is_a_profile_also_with_what_is_commented_out() {
    let shipped = include_str!("../../config/profile.yaml");
    assert_eq!(steps("profile.yaml", shipped).unwrap_err().list.len(), 2, "its paths are of an example");
    let example = &shipped.replace("replace-this-", "my-own-");
    let (profile, warnings) = steps("profile.yaml", example).unwrap();
    assert_eq!((profile.key_https, warnings.len()), (SecretSource::Prompt, 0));
    let keys = ["user", "totp", "ca", "http_port", "https_port", "duration", "check", "family", "then"];
    let more: String = example
        .lines()
        .filter_map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| keys.iter().any(|key| rest.starts_with(&format!("{key}: "))))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(more.lines().count(), keys.len());
    let all = steps("profile.yaml", &format!("{example}{more}")).unwrap().0;
    assert_eq!((all.user.map(|u| u.to_string()), all.check), (Some("alice".to_owned()), Some(22)));
}

#[test]
fn what_a_panic_could_print_of_a_profile_has_no_secret_in_it() {
    let all = profile(
        "access_key_http: my-first-key\naccess_key_https: my-second-key\ntotp: {secret: JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP}\n",
    );
    let printed = format!("{all:#?}");
    for secret in ["my-first", "my-second", "JBSWY3", "first-one-4711", "second-one-0815"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
