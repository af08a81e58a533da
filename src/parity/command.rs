//! Asks the mirrors and all organizations, and compares.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::blocking::concurrently::{concurrently, time_limit};
use crate::config::{Config, SentryApi};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::net::tls_client::TlsClient;
use crate::parity::api;
use crate::parity::compare::{Project, rows};
use crate::parity::counts::{self, Counts, Period};
use crate::parity::report::{self, Group};
use crate::parity::stats::Stats;

/// How long a mirror or an organization may take for each project.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What to compare, and how to show it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) since: Duration,
    /// A share of what was sent.
    pub(crate) tolerance: f64,
    pub(crate) is_json: bool,
    /// The admin ports of all mirrors that share the traffic.
    pub(crate) mirrors: Vec<SocketAddr>,
}

/// The comparison as text, and whether every difference is explained.
pub(crate) struct Comparison {
    pub(crate) text: String,
    pub(crate) is_good: bool,
    /// What is not compared, and why.
    pub(crate) warnings: Vec<String>,
}

/// A project of an organization, and the outbounds that send there.
#[derive(Clone, Debug)]
struct Target {
    api: SentryApi,
    project: String,
    /// The names of route and outbound.
    outbounds: Vec<(String, String)>,
    multiplies: bool,
}

/// Compares what the mirrors with `config` have counted with what Sentry has.
///
/// # Errors
/// Why nothing can be compared, for the operator.
pub(crate) fn run(
    config: &Config,
    table: &RoutingTable,
    order: &Order,
) -> Result<Comparison, String> {
    let (targets, mut warnings) = targets(config, table);
    if targets.is_empty() {
        return Err("no outbound has sentry_api, so that no organization can be asked".to_owned());
    }
    let mirrors = ask_mirrors(&order.mirrors)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = now.as_secs();
    let period = Period::new(now, order.since.as_secs(), &mirrors).ok_or(
        "there is no whole hour yet that the mirror has counted from its start; Sentry counts by hour, so come back an hour later",
    )?;
    let asked = u64::div_ceil(order.since.as_secs(), counts::HOUR);
    if period.hours() < asked {
        warnings.push(format!(
            "the mirror has counted only the last {} of {asked} hours; with state_file it would remember more after a restart",
            period.hours()
        ));
    }
    let stats = ask_sentry(config, &targets, period)?;
    let sums = counts::sums(&mirrors, period);
    let projects: Vec<(Vec<String>, Project)> = targets
        .iter()
        .zip(stats)
        .map(|(target, stats)| (target.routes(), target.project(&sums, stats)))
        .collect();
    let groups = groups(projects);
    let is_over = |group: &Group| group.rows.iter().any(|row| row.is_over(order.tolerance));
    let show = if order.is_json {
        report::json
    } else {
        report::text
    };
    Ok(Comparison {
        text: show(period, &groups, order.tolerance),
        is_good: !groups.iter().any(is_over),
        warnings,
    })
}

/// The projects that can be asked, and a warning about each outbound that cannot.
fn targets(config: &Config, table: &RoutingTable) -> (Vec<Target>, Vec<String>) {
    let mut targets: Vec<Target> = Vec::new();
    let mut warnings = Vec::new();
    let routes = config.routes.iter().zip(table.routes.all());
    let outbounds = routes.flat_map(|(configured, route)| {
        let outbounds = configured.outbounds.iter().zip(&route.outbounds);
        outbounds.map(move |(configured, outbound)| (configured, route, outbound))
    });
    for (configured, route, outbound) in outbounds {
        let name = (route.name.clone(), outbound.name.clone());
        let Some(api) = &configured.sentry_api else {
            warnings.push(format!(
                "{} of {} has no sentry_api and is not compared",
                name.1, name.0
            ));
            continue;
        };
        let project = configured.dsn.project();
        let known = targets.iter_mut().find(|target| target.is(api, project));
        match known {
            Some(target) => {
                target.outbounds.push(name);
                target.multiplies |= configured.copies > 1;
            }
            None => targets.push(Target {
                api: api.clone(),
                project: project.to_owned(),
                outbounds: vec![name],
                multiplies: configured.copies > 1,
            }),
        }
    }
    (targets, warnings)
}

impl Target {
    fn is(&self, api: &SentryApi, project: &str) -> bool {
        let is_same_place = self.api.origin == api.origin && self.api.prefix == api.prefix;
        is_same_place && self.api.organization == api.organization && self.project == project
    }

    fn routes(&self) -> Vec<String> {
        self.outbounds
            .iter()
            .map(|(route, _)| route.clone())
            .collect()
    }

    /// With what the mirrors have counted for its outbounds.
    fn project(
        &self,
        sums: &BTreeMap<(String, String), counts::Outcomes>,
        stats: Stats,
    ) -> Project {
        let mut sent = counts::Outcomes::new();
        for outcomes in self.outbounds.iter().filter_map(|name| sums.get(name)) {
            for (category, outcomes) in outcomes {
                let category = sent.entry(category.clone()).or_default();
                for (outcome, count) in outcomes {
                    *category.entry(outcome.clone()).or_default() += count;
                }
            }
        }
        let mut outbounds: Vec<String> = self
            .outbounds
            .iter()
            .map(|(_, outbound)| outbound.clone())
            .collect();
        outbounds.dedup();
        Project {
            name: format!("{}/{}", self.api.organization, self.project),
            outbounds,
            sent,
            stats,
            multiplies: self.multiplies,
        }
    }
}

fn ask_mirrors(addresses: &[SocketAddr]) -> Result<Vec<Counts>, String> {
    if let Some(address) = repeated(addresses) {
        return Err(format!(
            "{address} is given twice: its counts would be added twice, so give each mirror once"
        ));
    }
    let deadline = Instant::now() + TIME_LIMIT;
    let answers = concurrently(addresses.to_vec(), deadline, move |address| {
        api::counts(*address, deadline)
    });
    let late = |address: &SocketAddr| Err(format!("{address} does not answer in time"));
    let answers = answers.into_iter().zip(addresses);
    answers
        .map(|(answer, address)| answer.unwrap_or_else(|| late(address)))
        .collect()
}

/// An address that stands in the list more than once, in one form or as IPv4 and as IPv4-mapped IPv6.
fn repeated(addresses: &[SocketAddr]) -> Option<&SocketAddr> {
    let mut seen = HashSet::new();
    addresses
        .iter()
        .find(|address| !seen.insert((address.ip().to_canonical(), address.port())))
}

/// The counts of each target. The projects of one organization are asked for one after the other, because Sentry
/// limits how much is asked for at a time.
fn ask_sentry(config: &Config, targets: &[Target], period: Period) -> Result<Vec<Stats>, String> {
    let tls = TlsClient::load(&config.tls, None)?;
    let mut organizations: Vec<Vec<(usize, Target)>> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let same = organizations.iter_mut().find(|known| {
            let first = known.first();
            first.is_some_and(|(_, first)| first.is(&target.api, &first.project))
        });
        match same {
            Some(organization) => organization.push((index, target.clone())),
            None => organizations.push(vec![(index, target.clone())]),
        }
    }
    let most = organizations.iter().map(Vec::len).max().unwrap_or(0);
    let each = TIME_LIMIT.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
    let deadline = Instant::now() + time_limit(organizations.len(), each);
    let answers = concurrently(organizations, deadline, move |organization| {
        let ask = |(index, target): &(usize, Target)| {
            let deadline = Instant::now() + TIME_LIMIT;
            let stats = api::stats(&target.api, Some(&tls), &target.project, period, deadline);
            stats.map(|stats| (*index, stats))
        };
        organization
            .iter()
            .map(ask)
            .collect::<Result<Vec<_>, String>>()
    });
    let late = || Err("an organization does not answer in time".to_owned());
    let answers: Result<Vec<_>, String> = answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(late))
        .collect();
    let mut stats: Vec<(usize, Stats)> = answers?.into_iter().flatten().collect();
    stats.sort_by_key(|(index, _)| *index);
    Ok(stats.into_iter().map(|(_, stats)| stats).collect())
}

/// Puts projects together that have a route in common, directly or through others, so that both sides of a route
/// stand side by side.
fn groups(projects: Vec<(Vec<String>, Project)>) -> Vec<Group> {
    let mut groups: Vec<(Vec<String>, Vec<Project>)> = Vec::new();
    for (mut routes, project) in projects {
        let mut members = Vec::new();
        let is_related = |known: &(Vec<String>, Vec<Project>)| {
            known.0.iter().any(|route| routes.contains(route))
        };
        let (related, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_related);
        groups = others;
        let mut names = Vec::new();
        for (known_routes, known) in related {
            names.extend(known_routes);
            members.extend(known);
        }
        names.append(&mut routes);
        let mut seen = Vec::new();
        names.retain(|name| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        members.push(project);
        groups.push((names, members));
    }
    let group = |(routes, projects): (Vec<String>, Vec<Project>)| {
        let mut all: Vec<_> = projects.iter().flat_map(rows).collect();
        // Stable, so that projects stay in the order of the configuration.
        all.sort_by(|one, other| one.category.cmp(&other.category));
        Group { routes, rows: all }
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_is_given_twice_is_found() {
        let found = |addresses: &[&str]| {
            let addresses: Vec<SocketAddr> =
                addresses.iter().map(|text| text.parse().unwrap()).collect();
            repeated(&addresses).map(ToString::to_string)
        };
        assert_eq!(found(&["127.0.0.1:1", "127.0.0.1:2", "[::1]:1"]), None);
        assert_eq!(
            found(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]),
            Some("127.0.0.1:1".to_owned())
        );
        assert_eq!(
            found(&["127.0.0.1:1", "[::ffff:127.0.0.1]:1"]),
            Some("[::ffff:127.0.0.1]:1".to_owned())
        );
    }

    #[test]
    fn projects_with_a_route_in_common_are_one_group() {
        let project = |routes: &[&str], name: &str| {
            let sent = counts::Outcomes::from([(
                "error".to_owned(),
                BTreeMap::from([("delivered".to_owned(), 1)]),
            )]);
            let project = Project {
                name: name.to_owned(),
                sent,
                ..Project::default()
            };
            (
                routes.iter().map(|route| (*route).to_owned()).collect(),
                project,
            )
        };
        let groups = groups(vec![
            project(&["a"], "old/1"),
            project(&["b"], "old/2"),
            project(&["c"], "old/3"),
            project(&["a", "b"], "new/9"),
            project(&["c"], "new/3"),
        ]);
        let found: Vec<(String, Vec<&str>)> = groups
            .iter()
            .map(|group| {
                let rows = group.rows.iter();
                (
                    group.routes.join("+"),
                    rows.map(|row| row.project.as_str()).collect(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("a+b".to_owned(), vec!["old/1", "old/2", "new/9"]),
                ("c".to_owned(), vec!["old/3", "new/3"]),
            ]
        );
    }
}
