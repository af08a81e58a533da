//! Calls that may not be made, each with its reason and what to do instead.
//!
//! Most are a word in a table. Dropped accepts are not: there the call is fine and its place is not.

use super::{File, assert_tidy, file, group, has_word};

/// Something that may not be called or written.
struct Ban {
    text: &'static str,
    /// The folder it is banned in; empty for all.
    within: &'static str,
    /// The files and folders in which it is allowed all the same.
    except: &'static [&'static str],
    /// Why, and what to do instead.
    reason: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        text: "write_vectored_all",
        within: "src/",
        except: &[],
        reason: "monoio's keeps bare pointers, so that a dropped write sends freed memory; \
                 write a `sys::Gather` in a loop",
    },
    Ban {
        text: "read_vectored_exact",
        within: "src/",
        except: &[],
        reason: "monoio's keeps bare pointers, so that a dropped read writes to freed memory; \
                 read into one owned buffer in a loop",
    },
    Ban {
        text: "to_socket_addrs",
        within: "src/",
        except: &["src/upstream/dns.rs", "src/admin/push.rs"],
        reason: "it blocks the worker; use the addresses that `upstream::dns` keeps",
    },
    Ban {
        text: "ToSocketAddrs",
        within: "src/",
        except: &["src/upstream/dns.rs", "src/admin/push.rs"],
        reason: "it blocks the worker; use the addresses that `upstream::dns` keeps",
    },
    Ban {
        text: "TcpStream::connect(",
        within: "src/",
        except: &["src/demo/"],
        reason: "it resolves names on the worker; use `connect_addr` with a known address",
    },
    Ban {
        text: "yield_now",
        within: "src/",
        except: &[],
        reason: "a task that wakes itself keeps monoio from its timers and sockets; \
                 sleep for a millisecond",
    },
    Ban {
        text: "unsafe",
        within: "src/",
        // Where a header field has the word in it; the lint `unsafe_code` holds there too.
        except: &["src/sys.rs", "src/admin/http.rs"],
        reason: "the unsafe code of the program is in `src/sys.rs`, with its proof; use or extend that",
    },
    Ban {
        text: "#[ignore",
        within: "",
        except: &[],
        reason: "a test that does not run proves nothing; make it run or remove it",
    },
    Ban {
        text: "todo!",
        within: "",
        except: &[],
        reason: "nothing is left for later; do it, or open an issue",
    },
    Ban {
        text: "dbg!",
        within: "",
        except: &[],
        reason: "it is a leftover; remove it",
    },
    Ban {
        text: "println!",
        within: "src/",
        except: &["src/main.rs", "src/demo/"],
        reason: "it blocks the worker and knows no level; use `tracing`",
    },
    Ban {
        text: "eprintln!",
        within: "src/",
        except: &["src/main.rs", "src/demo/"],
        reason: "it blocks the worker and knows no level; use `tracing`",
    },
];

#[test]
fn banned_calls_are_not_made() {
    assert_tidy("", banned_calls);
    for ban in BANS {
        let call = format!("// Why.\nfn a() {{\n    {};\n}}\n", ban.text);
        let complaints = banned_calls(&file("src/a.rs", &call));
        let [complaint] = complaints.as_slice() else {
            panic!("{}: {complaints:?}", ban.text);
        };
        assert!(complaint.starts_with("src/a.rs:3: "), "{complaint}");
        assert!(complaint.contains(ban.reason), "{complaint}");
        for place in ban.except {
            assert!(banned_calls(&file(place, &call)).is_empty(), "{place}");
        }
        let mention = format!("    // Not {}.\n", ban.text);
        assert!(banned_calls(&file("src/a.rs", &mention)).is_empty());
    }
    let longer_word = "#![allow(unsafe_code)]\n";
    assert!(banned_calls(&file("src/a.rs", longer_word)).is_empty());
}

#[test]
fn nothing_gives_up_on_accepting() {
    assert_tidy("src/", cancelled_accepts);
    for bad in [
        "timeout(patience, listener.accept()).await",
        "timeout(patience, listener.cancelable_accept(handle)).await",
        "monoio::select! {\n    x = stop => x,\n    y = listener\n        .accept() => y,\n}",
    ] {
        assert_eq!(cancelled_accepts(&file("src/a.rs", bad)).len(), 1, "{bad}");
    }
    let good =
        "let x = listener.accept().await;\ntimeout(patience, read()).await;\nlistener.accept()";
    assert!(cancelled_accepts(&file("src/a.rs", good)).is_empty());
}

fn banned_calls(file: &File) -> Vec<String> {
    let path = &file.path;
    let mut complaints = Vec::new();
    for ban in BANS.iter().filter(|ban| path.starts_with(ban.within)) {
        if ban.except.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, _) in file.code().filter(|(_, line)| has_word(line, ban.text)) {
            let Ban { text, reason, .. } = ban;
            complaints.push(format!("{path}:{number}: `{text}` is banned: {reason}"));
        }
    }
    complaints
}

/// Finds accepts whose future may be dropped.
fn cancelled_accepts(file: &File) -> Vec<String> {
    let code: String = file.code().map(|(_, line)| line.trim()).collect();
    let path = &file.path;
    let mut complaints = Vec::new();
    for opener in ["timeout(", "select!"] {
        for (at, _) in code.match_indices(opener) {
            let inside = group(&code[at..]);
            if inside.contains(".accept()") || inside.contains(".cancelable_accept(") {
                complaints.push(format!(
                    "{path}: an accept inside `{opener}`: monoio loses the descriptor when the \
                     accept is dropped; cancel it with a `Canceller` and wait for its end instead"
                ));
            }
        }
    }
    complaints
}
