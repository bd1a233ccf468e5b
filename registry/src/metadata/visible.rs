//! Lists of what somebody may see. What they may not see is not walked over: a page costs as much as it has, and as the
//! projects do whose names come before.

use super::projects::Project;
use super::{Read, Result};
use crate::access::Sight;
use rusqlite::params;

/// Projects asked for at once when their repositories are walked over.
const BATCH: u32 = 256;

/// In the order of names; or in that of their repositories' names (`a-b/x` is before `a/x`).
#[derive(Clone, Copy)]
enum Order {
    Names,
    Repositories,
}

impl Read<'_> {
    /// At most `limit` projects after a name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn visible_projects(&self, sight: &Sight, last: &str, limit: u32) -> Result<Vec<Project>> {
        self.projects_in(Order::Names, sight, last, limit)
    }

    fn projects_in(
        &self,
        order: Order,
        sight: &Sight,
        last: &str,
        limit: u32,
    ) -> Result<Vec<Project>> {
        let (member, own) = match sight {
            Sight::Everything => return self.projects_after(last, limit),
            Sight::Nothing => return Ok(Vec::new()),
            Sight::Public { member, own } => (member.unwrap_or((0, 0)), own),
        };
        let key = match order {
            Order::Names => "name",
            Order::Repositories => "name || '/'",
        };
        // Each part is read by an index; the members' is as long as a user has projects.
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT id, name, public, created FROM (
                SELECT * FROM (SELECT id, name, public, created FROM projects
                    WHERE public AND {key} > ?1 ORDER BY {key} LIMIT ?2)
                UNION SELECT p.id, p.name, p.public, p.created FROM members m JOIN projects p ON p.id = m.project
                    WHERE m.user = ?3 AND m.role >= ?4
                UNION SELECT id, name, public, created FROM projects WHERE name = ?5)
             WHERE {key} > ?1 ORDER BY {key} LIMIT ?2"
        ))?;
        let rows = statement.query_map(
            params![last, limit, member.0, member.1, own],
            Project::from_row,
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// At most `limit` names of repositories after `last`, sorted by their bytes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn visible_repositories(
        &self,
        sight: &Sight,
        last: &str,
        limit: u32,
    ) -> Result<Vec<String>> {
        if *sight == Sight::Everything {
            return self.repositories_between(last, None, limit);
        }
        let mut names = Vec::new();
        // In whose midst the page begins.
        let mut after = match last.split_once('/') {
            Some((project, _)) => format!("{project}/"),
            None => last.to_owned(),
        };
        if let Some((project, _)) = last.split_once('/')
            && self.sees(sight, project)?
        {
            names = self.repositories_between(last, Some(project), limit)?;
        }
        loop {
            let batch = self.projects_in(Order::Repositories, sight, &after, BATCH)?;
            let Some(end) = batch.last() else {
                return Ok(names);
            };
            after = format!("{}/", end.name);
            for project in &batch {
                let left = limit.saturating_sub(u32::try_from(names.len()).unwrap_or(limit));
                if left == 0 {
                    return Ok(names);
                }
                names.extend(self.repositories_between("", Some(&project.name), left)?);
            }
        }
    }

    fn sees(&self, sight: &Sight, name: &str) -> Result<bool> {
        let Some(project) = self.project(name)? else {
            return Ok(false);
        };
        Ok(match sight {
            Sight::Everything => true,
            Sight::Nothing => false,
            Sight::Public { member, own } => {
                let role = match member {
                    Some((user, _)) => self.role(project.id, *user)?,
                    None => None,
                };
                let least = member.map_or(0, |(_, least)| least);
                project.public
                    || role.is_some_and(|role| role.number() >= least)
                    || own.as_ref() == Some(&project.name)
            }
        })
    }

    /// Names after `last`; of one project, if one is given.
    fn repositories_between(
        &self,
        last: &str,
        project: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>> {
        // `0` is the next character after `/`.
        let (begin, end) = match project {
            Some(project) => (format!("{project}/"), format!("{project}0")),
            None => (String::new(), "\u{10ffff}".into()),
        };
        let begin = if last > begin.as_str() { last } else { &begin };
        let mut statement = self.0.prepare_cached(
            "SELECT name FROM repositories WHERE name > ?1 AND name < ?2 ORDER BY name LIMIT ?3",
        )?;
        let rows = statement.query_map(params![begin, end, limit], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Action, Principal, Role, Target, Verdict, authorise, sight};
    use crate::metadata::{Error, Metadata, NewRobot, Write, now};
    use std::time::Instant;

    const NAMES: [&str; 7] = ["a", "a-b", "a0", "ab", "b", "z.z", "z"];

    fn fill(db: &Write<'_>) -> Result<Vec<Principal>> {
        db.set_user("jo", "", false)?;
        db.set_user("root", "", true)?;
        let jo = db.user("jo")?.unwrap();
        let root = db.user("root")?.unwrap();
        for (n, name) in NAMES.iter().enumerate() {
            let id = db
                .create_project(&name.parse().unwrap(), n % 3 == 0)?
                .unwrap();
            if n % 3 == 1 {
                db.set_member(id, jo.id, Role::Viewer)?;
            }
            for repository in ["x", "x/y", "x-y", "z"] {
                db.ensure_repository(&format!("{name}/{repository}").parse().unwrap())?;
            }
        }
        let robot = NewRobot {
            name: "r".into(),
            actions: vec!["pull".into()],
            expires: now() + 60_000,
            created_by: "root".into(),
        };
        db.create_robot(db.project("a0")?.unwrap().id, &robot, &[1; 32])?;
        let user = |user: &crate::metadata::User, older: i64| Principal::User {
            id: user.id,
            name: user.name.clone(),
            generation: user.generation - older,
        };
        Ok(vec![
            Principal::Anonymous,
            Principal::Console,
            user(&jo, 0),
            user(&jo, 1),
            user(&root, 0),
            db.robot("a0", "r")?.unwrap().into(),
        ])
    }

    #[tokio::test]
    async fn lists_show_what_each_one_may_see_and_in_the_right_order_from_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&folder.path().join("m.sqlite")).unwrap();
        let who = metadata.write(fill).await.unwrap();
        let look = |db: &Read<'_>| {
            let all = db.visible_repositories(&Sight::Everything, "", 100)?;
            assert_eq!(all.len(), 4 * NAMES.len());
            for principal in &who {
                for action in [Action::See, Action::Pull] {
                    let sight = sight(db, principal, action)?;
                    let may = |project: &str| {
                        let verdict = authorise(db, principal, action, Target::Project(project));
                        verdict.unwrap() == Verdict::Allowed
                    };
                    let own: Vec<&String> = all
                        .iter()
                        .filter(|name| may(name.split_once('/').unwrap().0))
                        .collect();
                    let mut projects = NAMES.to_vec();
                    projects.sort_unstable();
                    projects.retain(|name| may(name));
                    let found = db.visible_projects(&sight, "", 100)?;
                    let found: Vec<&str> = found.iter().map(|p| p.name.as_str()).collect();
                    assert_eq!(found, projects, "{principal:?}");
                    for begin in ["", "a", "a-", "a/", "a/x-y", "a0/zz", "b/x", "c", "zz"] {
                        for limit in [0, 1, 3, 100] {
                            let wanted = own.iter().filter(|name| name.as_str() > begin);
                            let wanted: Vec<&String> =
                                wanted.take(limit as usize).copied().collect();
                            let found = db.visible_repositories(&sight, begin, limit)?;
                            let found: Vec<&String> = found.iter().collect();
                            assert_eq!(found, wanted, "{principal:?} {action:?} {begin} {limit}");
                        }
                    }
                }
            }
            Ok::<_, Error>(())
        };
        metadata.read(look).unwrap();
    }

    #[tokio::test]
    async fn what_is_not_seen_costs_a_page_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&folder.path().join("m.sqlite")).unwrap();
        let fill = |db: &Write<'_>| {
            db.create_project(&"z".parse().unwrap(), true)?;
            db.ensure_repository(&"z/a".parse().unwrap())?;
            let many =
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)";
            db.create_project(&"private".parse().unwrap(), false)?;
            let private = db.project("private")?.unwrap();
            db.0.0.execute(
                &format!("{many} INSERT INTO repositories (project, name, created) SELECT ?1, 'private/' || i, 0 FROM n"),
                [private.id.0],
            )?;
            db.0.0.execute(
                &format!("{many} INSERT INTO projects (name, public, created) SELECT 'p' || i, 0, 0 FROM n"),
                [],
            )?;
            Ok::<_, Error>(())
        };
        metadata.write(fill).await.unwrap();
        let anyone = Sight::Public {
            member: None,
            own: None,
        };
        let page = |db: &Read<'_>| {
            let begin = Instant::now();
            assert_eq!(db.visible_repositories(&anyone, "", 10)?, ["z/a"]);
            assert_eq!(db.visible_projects(&anyone, "", 10)?.len(), 1);
            Ok::<_, Error>(begin.elapsed())
        };
        // The first one prepares the statements.
        let best = (0..20).map(|_| metadata.read(page).unwrap()).min().unwrap();
        let steps = std::time::Duration::from_millis(5);
        assert!(best < steps, "{best:?} for a page of one");
    }
}
