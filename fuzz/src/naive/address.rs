//! The address of the client that a request comes from.
//!
//! All entries of the field are listed first, and those of trusted proxies are then taken off the end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::http::Message;

/// The client of a request that came from `peer`, if proxies write the field `name`.
pub fn client(came: &Message, name: &str, peer: IpAddr, is_trusted: fn(IpAddr) -> bool) -> IpAddr {
    let mut known: Vec<Option<IpAddr>> = Vec::new();
    for value in came.values(name) {
        for entry in entries(value) {
            known.push(match name {
                "forwarded" => forwarded_for(&entry).and_then(|node| address(&node)),
                _ => address(&entry),
            });
        }
    }
    known.push(Some(peer));
    let is_proxy = |entry: &Option<IpAddr>| entry.is_some_and(is_trusted);
    let proxies = known
        .iter()
        .rev()
        .take_while(|entry| is_proxy(entry))
        .count();
    let before = known.len() - proxies;
    let client = before.checked_sub(1).and_then(|at| known[at]);
    client.unwrap_or_else(|| known[before].expect("proxies have addresses"))
}

/// The entries of a list that are not empty. A comma separates if the quotes behind it are in pairs.
fn entries(list: &[u8]) -> Vec<String> {
    let text: Vec<char> = list.iter().map(|byte| char::from(*byte)).collect();
    let is_quote = |at: usize| {
        let backslashes = (0..at).rev().take_while(|before| text[*before] == '\\');
        text[at] == '"' && backslashes.count() % 2 == 0
    };
    let quotes_behind = |at: usize| (at..text.len()).filter(|quote| is_quote(*quote)).count();
    let mut entries = vec![String::new()];
    for (at, letter) in text.iter().enumerate() {
        match letter {
            ',' if quotes_behind(at) % 2 == 0 => entries.push(String::new()),
            letter => entries.last_mut().expect("there is one").push(*letter),
        }
    }
    entries.retain(|entry| !entry.trim_matches([' ', '\t']).is_empty());
    entries
}

/// The only parameter `for` of an element.
fn forwarded_for(element: &str) -> Option<String> {
    let mut parameters = vec![String::new()];
    let mut letters = element.chars();
    let mut is_quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            ';' if !is_quoted => {
                parameters.push(String::new());
                continue;
            }
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        let last = parameters.last_mut().expect("there is one");
        last.push(letter);
        if letter == '\\' && is_quoted {
            last.extend(letters.next());
        }
    }
    let named = parameters.iter().filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let name = name.trim_matches([' ', '\t']);
        name.eq_ignore_ascii_case("for").then(|| value.to_owned())
    });
    match named.collect::<Vec<_>>().as_slice() {
        [value] => Some(value.clone()),
        _ => None,
    }
}

fn address(node: &str) -> Option<IpAddr> {
    let mut node = node.trim_matches([' ', '\t']);
    if node.starts_with('"') {
        node = node.strip_prefix('"')?.strip_suffix('"')?;
    }
    let with_brackets = |text: &str| -> Option<IpAddr> {
        let bare = text.strip_prefix('[')?.strip_suffix(']')?;
        Some(bare.parse::<Ipv6Addr>().ok()?.into())
    };
    let bare: Option<IpAddr> = node.parse().ok().or_else(|| with_brackets(node));
    let with_port = || {
        let (host, port) = node.rsplit_once(':')?;
        let is_number = port.parse::<u16>().is_ok() && !port.starts_with('+');
        let is_name = port.len() > 1
            && port.starts_with('_')
            && port
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || "._-".contains(it));
        let is_port = is_number || is_name;
        let plain = || Some(host.parse::<Ipv4Addr>().ok()?.into());
        is_port
            .then(|| with_brackets(host).or_else(plain))
            .flatten()
    };
    let address = bare.or_else(with_port)?;
    Some(match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    })
}
