//! Fills `{{names}}` into a template.

/// Why a template cannot be filled in; the templates are part of the program, so a test sees it first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that has no value.
    #[error("template has no value for `{0}`")]
    Unknown(String),
    /// A name that does not end.
    #[error("template has an unfinished `{{{{`")]
    Unfinished,
}

/// Fills in a template. A line that holds one name and nothing else vanishes when the value is empty.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(template.len());
    for line in template.split_inclusive('\n') {
        let alone = line.trim_end().strip_prefix("{{").and_then(|l| l.strip_suffix("}}"));
        if let Some(name) = alone.filter(|name| !name.contains("}}")) {
            let value = value(name, values)?;
            out.push_str(value);
            if !value.is_empty() && !value.ends_with('\n') {
                out.push('\n');
            }
            continue;
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) = after.split_once("}}").ok_or(TemplateError::Unfinished)?;
            out.push_str(before);
            out.push_str(value(name, values)?);
            rest = behind;
        }
        out.push_str(rest);
    }
    Ok(out)
}

fn value<'a>(name: &str, values: &[(&str, &'a str)]) -> Result<&'a str, TemplateError> {
    values
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, value)| value)
        .ok_or_else(|| TemplateError::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_empty_lines_of_their_own_vanish() {
        let filled = fill(
            "a {{x}}b{{y}}\n{{none}}\n{{block}}\nend\n",
            &[("x", "1"), ("y", "2"), ("none", ""), ("block", "\tone\n\ttwo")],
        );
        assert_eq!(filled.unwrap(), "a 1b2\n\tone\n\ttwo\nend\n");
    }

    #[test]
    fn unknown_and_unfinished_names_are_errors() {
        assert_eq!(fill("{{x}}", &[]), Err(TemplateError::Unknown("x".into())));
        assert_eq!(fill("a {{x", &[]), Err(TemplateError::Unfinished));
    }
}
