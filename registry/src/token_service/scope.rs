//! Scopes as clients ask for them: `TYPE:NAME:ACTION[,ACTION…]`, several with spaces between (OAuth2) or one by one.

use crate::access::tokens::{Grant, action_name};
use crate::access::{Action, Principal, Target, Verdict, authorise};
use crate::metadata::{self, Read};
use crate::names::RepositoryName;

/// Most scopes that are looked at; a client that mounts from many places asks for one each.
const MOST: usize = 64;
/// Most actions of one of them.
const MOST_ACTIONS: usize = 8;

/// What was asked for, as far as it has the form. What has not is left out: granting less is no error.
pub(crate) fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Grant> {
    texts
        .flat_map(|text| text.split(' '))
        .filter(|text| !text.is_empty())
        .take(MOST)
        .filter_map(one)
        .collect()
}

fn one(text: &str) -> Option<Grant> {
    let (kind, rest) = text.split_once(':')?;
    // The last colon: a name may have one, of a port.
    let (name, actions) = rest.rsplit_once(':')?;
    // `repository(plugin)`: the class changes nothing.
    let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
    Some(Grant {
        kind: kind.to_owned(),
        name: name.to_owned(),
        actions: actions
            .split(',')
            .take(MOST_ACTIONS)
            .map(str::to_owned)
            .collect(),
    })
}

/// What of it this principal gets now.
pub(crate) fn grant(
    read: &Read<'_>,
    principal: &Principal,
    asked: Vec<Grant>,
) -> metadata::Result<Vec<Grant>> {
    let mut granted = Vec::new();
    for scope in asked {
        match scope.kind.as_str() {
            "repository" => granted.extend(repository(read, principal, scope)?),
            // Shows each what they may see, so everybody may ask.
            "registry" if scope.name == "catalog" => granted.push(Grant {
                actions: vec!["*".into()],
                ..scope
            }),
            _ => {}
        }
    }
    Ok(granted)
}

fn repository(
    read: &Read<'_>,
    principal: &Principal,
    asked: Grant,
) -> metadata::Result<Option<Grant>> {
    let Ok(name) = asked.name.parse::<RepositoryName>() else {
        return Ok(None);
    };
    let mut actions = Vec::new();
    for action in [Action::Pull, Action::Push, Action::Delete] {
        let Some(word) = action_name(action) else {
            continue;
        };
        let wanted = asked.actions.iter().any(|a| a == word || a == "*");
        if wanted
            && authorise(read, principal, action, Target::Repository(&name))? == Verdict::Allowed
        {
            actions.push(word.to_owned());
        }
    }
    Ok((!actions.is_empty()).then_some(Grant { actions, ..asked }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scopes_are_read_in_all_their_forms() {
        let texts = [
            "repository:p/a:pull,push repository(plugin):p/b:pull",
            "registry:catalog:*",
            "nothing",
            "",
        ];
        let found = parse(texts.into_iter());
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].actions, ["pull", "push"]);
        assert_eq!(
            (found[1].kind.as_str(), found[1].name.as_str()),
            ("repository", "p/b")
        );
        assert_eq!(found[2].name, "catalog");
    }

    proptest! {
        #[test]
        fn any_scope_is_bounded(text in "[a-z:, /()*]{0,2000}") {
            let found = parse([text.as_str()].into_iter());
            prop_assert!(found.len() <= MOST);
            prop_assert!(found.iter().all(|g| g.actions.len() <= MOST_ACTIONS));
        }
    }
}
