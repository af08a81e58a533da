//! Checks that each sink gets every request once, rewritten for it.
//!
//! A sink records each request in its ledger. At the end of a slot the ledger knows which requests are
//! missing, duplicated or wrong, and keeps the text of the first fault. What has to be right depends on the
//! abilities of the contender.

use memchr::memmem::{self, Finder};

use crate::wire::{ID_FIELD, ID_LEN, INBOUND_KEY, Target, Template};

/// How much of an envelope is searched for keys: more than the header of any envelope here.
pub const LOOKED_AT_BYTES: usize = 512;

/// What a contender can rewrite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Everything.
    Full,
    /// Path, query and header lines; the body is unchanged.
    Head,
    /// Nothing; the body is decoded.
    Decode,
    /// Nothing.
    Copy,
}

impl Ability {
    pub fn words(self) -> &'static str {
        match self {
            Ability::Full => "all",
            Ability::Head => "head only",
            Ability::Decode => "nothing, decodes",
            Ability::Copy => "nothing",
        }
    }
}

/// The ledger of one sink.
pub struct Ledger {
    target: Target,
    ability: Ability,
    /// How often each request number has arrived.
    seen: Vec<u8>,
    /// The expected body of each kind.
    bodies: Vec<Body>,
    /// Whether bodies are compared byte for byte.
    pub is_thorough: bool,
    pub arrived: usize,
    wrong: usize,
    complaint: Option<String>,
    path: Vec<u8>,
    finders: Finders,
}

/// What every request is searched for.
struct Finders {
    own: Finder<'static>,
    inbound: Finder<'static>,
    coding: Finder<'static>,
}

/// What a body has to be.
struct Body {
    bytes: Vec<u8>,
    is_envelope: bool,
}

/// The outcome of a slot.
#[derive(Default)]
pub struct Verdict {
    pub missing: usize,
    pub twice: usize,
    pub wrong: usize,
    pub complaint: Option<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.missing + self.twice + self.wrong == 0
    }

    pub fn add(&mut self, other: Verdict) {
        self.missing += other.missing;
        self.twice += other.twice;
        self.wrong += other.wrong;
        self.complaint = self.complaint.take().or(other.complaint);
    }
}

impl Ledger {
    pub fn new(target: Target, ability: Ability, templates: &[Template]) -> Ledger {
        let body = |template: &Template| Body {
            bytes: match ability {
                Ability::Full => template.rewritten(&target),
                Ability::Decode => template.decoded().to_vec(),
                Ability::Head | Ability::Copy => template.untouched().to_vec(),
            },
            is_envelope: template.is_envelope(),
        };
        Ledger {
            bodies: templates.iter().map(body).collect(),
            path: format!("POST /api/{}/", target.project).into_bytes(),
            finders: Finders {
                own: Finder::new(&target.key).into_owned(),
                inbound: Finder::new(INBOUND_KEY),
                coding: Finder::new(b"\r\ncontent-encoding:"),
            },
            target,
            ability,
            seen: Vec::new(),
            is_thorough: false,
            arrived: 0,
            wrong: 0,
            complaint: None,
        }
    }

    /// Records a request: its head, its body or the first [`LOOKED_AT_BYTES`] of it, and the length of the
    /// body.
    pub fn enter(&mut self, head: &[u8], body: &[u8], body_bytes: usize) {
        self.arrived += 1;
        if let Err(complaint) = self.check(head, body, body_bytes) {
            self.wrong += 1;
            let key = &self.target.key;
            self.complaint.get_or_insert_with(|| {
                let head = String::from_utf8_lossy(head);
                format!("{complaint}, at the sink of {key}; it came as {head:?}")
            });
        }
    }

    fn check(&mut self, head: &[u8], body: &[u8], body_bytes: usize) -> Result<(), &'static str> {
        let at = memmem::find(head, ID_FIELD).ok_or("it has no x-request-id")? + ID_FIELD.len();
        let id = head.get(at..at + ID_LEN).ok_or("its x-request-id is cut")?;
        let id = std::str::from_utf8(id).map_err(|_| "its x-request-id is no number")?;
        let (number, kind) = id.split_once('-').ok_or("its x-request-id is no number")?;
        let number: usize = number
            .parse()
            .map_err(|_| "its x-request-id is no number")?;
        let kind: usize = kind.parse().map_err(|_| "its x-request-id is no number")?;
        if self.seen.len() <= number {
            self.seen.resize((number + 1).next_power_of_two(), 0);
        }
        self.seen[number] = self.seen[number].saturating_add(1);

        let expected = self.bodies.get(kind).ok_or("its kind is unknown")?;
        if self.ability == Ability::Copy {
            return Ok(());
        }
        if body_bytes != expected.bytes.len() {
            return Err("its body has another length");
        }
        if self.is_thorough && body != expected.bytes {
            return Err("its body is not what it should be");
        }
        if self.ability == Ability::Decode {
            return Ok(());
        }
        if !head.starts_with(&self.path) {
            return Err("its path is not rewritten");
        }
        if self.finders.own.find(head).is_none() || self.finders.inbound.find(head).is_some() {
            return Err("the key in its head is not rewritten");
        }
        if self.ability == Ability::Head {
            return Ok(());
        }
        if self.finders.coding.find(head).is_some() {
            return Err("its body is decoded and has a content-encoding");
        }
        let front = body.get(..LOOKED_AT_BYTES).unwrap_or(body);
        if expected.is_envelope
            && (self.finders.own.find(front).is_none()
                || self.finders.inbound.find(front).is_some())
        {
            return Err("the key in its envelope is not rewritten");
        }
        Ok(())
    }

    /// How often the request with this number has arrived.
    pub fn times(&self, number: usize) -> u8 {
        self.seen.get(number).copied().unwrap_or(0)
    }

    /// The result for the first `sent` requests.
    pub fn verdict(&self, sent: usize) -> Verdict {
        let missing: Vec<usize> = (0..sent)
            .filter(|number| self.times(*number) == 0)
            .collect();
        let complaint = missing.first().map(|number| {
            let key = &self.target.key;
            format!("request {number} never came to the sink of {key}")
        });
        Verdict {
            missing: missing.len(),
            twice: (0..sent).filter(|number| self.times(*number) > 1).count(),
            wrong: self.wrong,
            complaint: self.complaint.clone().or(complaint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Coding, Content, INBOUND_DSN, Key, Kind};

    /// The expected head and body of a request of 1 KB for the first outbound.
    fn rewritten(number: usize) -> (Ledger, Vec<u8>, Vec<u8>) {
        let kind = Kind {
            share: 100,
            bytes: 1000,
            coding: Coding::Gzip,
            key: Key::Field,
            content: Content::TextWithDsn,
        };
        let address = ([127, 0, 0, 1], 9000).into();
        let target = Target::new(0, address, false);
        let mut template = Template::new(0, &kind);
        template.name(number);
        let body = template.rewritten(&target);
        let (head_end, wire) = (memmem::find(&template.wire, b"\r\n\r\n"), &template.wire);
        let head = String::from_utf8_lossy(&wire[..head_end.unwrap() + 4])
            .replace(INBOUND_KEY, &target.key)
            .replace("/api/42/", "/api/1001/")
            .replace("content-encoding: gzip\r\n", "");
        let mut ledger = Ledger::new(target, Ability::Full, &[template]);
        ledger.is_thorough = true;
        (ledger, head.into_bytes(), body)
    }

    #[test]
    fn what_is_right_and_came_once_is_no_complaint() {
        let (mut ledger, head, body) = rewritten(0);
        ledger.enter(&head, &body, body.len());
        let verdict = ledger.verdict(1);
        assert!(verdict.is_clean(), "{:?}", verdict.complaint);
        ledger.enter(&head, &body, body.len());
        assert_eq!(ledger.verdict(1).twice, 1);
        assert_eq!(ledger.verdict(3).missing, 2);
    }

    #[test]
    fn each_place_that_is_not_rewritten_is_seen() {
        let (_, head, body) = rewritten(0);
        let changed = |text: &[u8], from: &str, to: &str| {
            let text = String::from_utf8_lossy(text).into_owned();
            assert!(text.contains(from), "{text}");
            text.replacen(from, to, 1).into_bytes()
        };
        let own = format!("{:032x}", 0xaaaa_0000_u64);
        let dsn = format!("http://{own}@127.0.0.1:9000/1001");
        for (head, body) in [
            (changed(&head, "/1001/", "/42/"), body.clone()),
            (changed(&head, &own, INBOUND_KEY), body.clone()),
            (
                changed(&head, "host:", "content-encoding: gzip\r\nhost:"),
                body.clone(),
            ),
            (changed(&head, "x-request-id", "x-id"), body.clone()),
            (head.clone(), changed(&body, &dsn, INBOUND_DSN)),
            (head.clone(), changed(&body, &own, INBOUND_KEY)),
            (head.clone(), body[..500].to_vec()),
        ] {
            for is_thorough in [true, false] {
                let (mut ledger, ..) = rewritten(0);
                ledger.is_thorough = is_thorough;
                ledger.enter(&head, &body, body.len());
                assert_eq!(ledger.verdict(1).wrong, 1, "{is_thorough}");
            }
        }
    }
}
