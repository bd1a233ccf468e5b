//! Which objects a specification means, and reading their properties.

use super::values::{NoValue, Scope, exists, names, value};
use crate::inventory::is_a;
use std::collections::{HashMap, HashSet};
use vim::types::*;
use vim::{Any, Fault, FaultKind};

/// Objects that a specification may mean.
const OBJECTS_MAX: usize = 200_000;

/// The objects that a specification means, in the order in which they are found.
///
/// # Errors
/// `ManagedObjectNotFound` for a start that does not exist (unless `skip_missing`).
pub fn select(
    scope: &Scope<'_>,
    spec: &PropertyFilterSpec,
    skip_missing: bool,
) -> Result<Vec<ManagedObjectReference>, Fault> {
    let mut named = HashMap::new();
    for start in &spec.object_set {
        collect_names(&start.select_set, &mut named);
    }
    let mut found = Found {
        objects: Vec::new(),
        reported: HashSet::new(),
        visited: HashSet::new(),
    };
    for start in &spec.object_set {
        if !exists(scope, &start.obj) {
            if skip_missing || spec.report_missing.unwrap_or(false) {
                continue;
            }
            return Err(crate::state::not_found(&start.obj));
        }
        if !start.skip.unwrap_or(false) {
            found.report(spec, &start.obj);
        }
        walk(
            scope,
            spec,
            &start.obj,
            &start.select_set,
            &named,
            &mut found,
        );
    }
    Ok(found.objects)
}

struct Found {
    objects: Vec<ManagedObjectReference>,
    reported: HashSet<ManagedObjectReference>,
    /// Traversals that were made from an object, so that a recursive one ends.
    visited: HashSet<(ManagedObjectReference, *const TraversalSpec)>,
}

impl Found {
    fn report(&mut self, spec: &PropertyFilterSpec, object: &ManagedObjectReference) {
        // An object of a type that nothing is asked of is none of the filter's.
        let asked = spec
            .prop_set
            .iter()
            .any(|set| is_a(&object.kind, &set.kind));
        if asked && self.objects.len() < OBJECTS_MAX && self.reported.insert(object.clone()) {
            self.objects.push(object.clone());
        }
    }
}

fn collect_names<'a>(set: &'a [SelectionSpec], named: &mut HashMap<&'a str, &'a TraversalSpec>) {
    for selection in set {
        if let SelectionSpec::Traversal(traversal) = selection {
            if let Some(name) = &traversal.name {
                named.insert(name, traversal);
            }
            collect_names(&traversal.select_set, named);
        }
    }
}

fn walk(
    scope: &Scope<'_>,
    spec: &PropertyFilterSpec,
    start: &ManagedObjectReference,
    set: &[SelectionSpec],
    named: &HashMap<&str, &TraversalSpec>,
    found: &mut Found,
) {
    // A stack of its own: a client's specification must not decide how deep ours gets.
    let mut open: Vec<(ManagedObjectReference, &[SelectionSpec])> = vec![(start.clone(), set)];
    while let Some((from, set)) = open.pop() {
        for selection in set {
            let traversal = match selection {
                SelectionSpec::Traversal(traversal) => traversal,
                SelectionSpec::Named(name) => match named.get(name.as_str()) {
                    Some(traversal) => traversal,
                    None => continue,
                },
            };
            if !is_a(&from.kind, &traversal.kind)
                || !found
                    .visited
                    .insert((from.clone(), std::ptr::from_ref(traversal)))
            {
                continue;
            }
            let Ok(value) = value(scope, &from, &traversal.path) else {
                continue;
            };
            for to in references(&value) {
                if !exists(scope, &to) {
                    continue;
                }
                if !traversal.skip.unwrap_or(false) {
                    found.report(spec, &to);
                }
                if !traversal.select_set.is_empty() {
                    open.push((to, &traversal.select_set));
                }
            }
        }
    }
}

fn references(value: &Any) -> Vec<ManagedObjectReference> {
    if value.type_name() == "ArrayOfManagedObjectReference" {
        value.items().unwrap_or_default()
    } else {
        value
            .get()
            .into_iter()
            .filter(|r: &ManagedObjectReference| !r.kind.is_empty())
            .collect()
    }
}

/// The paths that a specification asks of an object.
pub fn paths<'a>(spec: &'a PropertyFilterSpec, object: &ManagedObjectReference) -> Vec<&'a str> {
    let mut paths = Vec::new();
    for set in spec
        .prop_set
        .iter()
        .filter(|set| is_a(&object.kind, &set.kind))
    {
        if set.all.unwrap_or(false) {
            paths.extend_from_slice(names(&object.kind));
        }
        paths.extend(set.path_set.iter().map(String::as_str));
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Refuses paths that the type does not have.
///
/// # Errors
/// `InvalidProperty`.
pub fn check(spec: &PropertyFilterSpec) -> Result<(), Fault> {
    for set in &spec.prop_set {
        let known = names(&set.kind);
        for path in &set.path_set {
            let first = path.split('.').next().unwrap_or_default();
            // Base types (ManagedEntity) have no list of their own.
            let fine = known.is_empty() || known.contains(&first) || KNOWN_UNSET.contains(&first);
            if !fine {
                let message = format!("The property '{path}' of {} does not exist", set.kind);
                return Err(Fault::new(
                    FaultKind::InvalidProperty { name: path.clone() },
                    message,
                ));
            }
        }
    }
    Ok(())
}

/// Properties that the API has and that are never set here: asking for them is no fault.
const KNOWN_UNSET: &[&str] = &[
    "value",
    "availableField",
    "customValue",
    "configStatus",
    "configIssue",
    "effectiveRole",
    "permission",
    "disabledMethod",
    "recentTask",
    "declaredAlarmState",
    "triggeredAlarmState",
    "alarmActionsEnabled",
    "tag",
    "capability",
    "layout",
    "layoutEx",
    "storage",
    "environmentBrowser",
    "parentVApp",
    "resourceConfig",
    "snapshot",
    "rootSnapshot",
    "config",
    "configManager",
    "hardware",
    "systemResources",
    "iormConfiguration",
    "description",
    "message",
    "messageLocaleList",
    "supportedLocaleList",
    "supportedOption",
    "configuration",
    "namespace",
];

/// An object with the properties that a specification asks of it; `None` where it is gone.
pub fn content(
    scope: &Scope<'_>,
    spec: &PropertyFilterSpec,
    object: &ManagedObjectReference,
) -> Option<ObjectContent> {
    let mut content = ObjectContent {
        obj: object.clone(),
        ..ObjectContent::default()
    };
    for path in paths(spec, object) {
        match value(scope, object, path) {
            Ok(val) => content.prop_set.push(DynamicProperty {
                name: path.to_owned(),
                val,
            }),
            Err(NoValue::Unset | NoValue::NoProperty) => {}
            Err(NoValue::NoObject) => return None,
        }
    }
    Some(content)
}

/// Everything that some specifications ask for.
///
/// # Errors
/// `InvalidProperty`, `ManagedObjectNotFound`.
pub fn retrieve(
    scope: &Scope<'_>,
    specs: &[PropertyFilterSpec],
) -> Result<Vec<ObjectContent>, Fault> {
    let mut all = Vec::new();
    for spec in specs {
        check(spec)?;
        for object in select(scope, spec, false)? {
            all.extend(content(scope, spec, &object));
        }
    }
    Ok(all)
}

/// One property of an object; `None` where it is not set.
///
/// # Errors
/// `InvalidProperty`, `ManagedObjectNotFound`.
pub fn fetch(
    scope: &Scope<'_>,
    object: &ManagedObjectReference,
    name: &str,
) -> Result<Option<Any>, Fault> {
    match value(scope, object, name) {
        Ok(value) => Ok(Some(value)),
        Err(NoValue::Unset) => Ok(None),
        Err(NoValue::NoObject) => Err(crate::state::not_found(object)),
        Err(NoValue::NoProperty) if KNOWN_UNSET.contains(&name) => Ok(None),
        Err(NoValue::NoProperty) => {
            let message = format!("The property '{name}' of {} does not exist", object.kind);
            let kind = FaultKind::InvalidProperty {
                name: name.to_owned(),
            };
            Err(Fault::new(kind, message))
        }
    }
}
