//! What the random requests and responses consist of.

/// The places of a request that change, each with what may be there: an empty text is no line at all. Those that make
/// a request invalid, or without a key, come last, and are chosen less often. `{K}` is the first key, `{L}` the second, `{M}` the third,
/// `{U}` one that is not configured, `{V}` the tag of a mirror with the first key.
#[rustfmt::skip]
pub(super) const PLACES: &[(&[&str], &[&str])] = &[
    (
        &["POST", "POST", "POST", "PUT ", "GET", "HEAD", "OPTIONS"],
        &["post", "PURG", "POST "],
    ),
    (
        &[
            "/api/42/store/", "/api/43/store/", "/api/42/store/?sentry_key={K}", "/api/42/store/?sentry_key={L}",
            "/api/42/other/", "/api/42/other/?a=1", "/api/42/other/?a=2", "//api/42/store/", "/x/api/42/store/",
            "http://a/api/42/store/", "/api/42/cron/a/{K}/", "/api/42/cron/a/{M}/", "/api/42/envelope/", "/tunnel",
            "/health", "/healthy",
        ],
        &[
            "/api/42/../store/", "/api/42/store/#a", "*", "/api/42/store/?sentry_key={U}", "api/42/store/",
        ],
    ),
    (
        &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"],
        &["HTTP/1.2", "HTTP/2.0", "http/1.1"],
    ),
    (
        &["Host: m\r\n", "Host: n\r\n", "host:m \r\n", ""],
        &["Host: m\r\nHost: n\r\n", "Host : m\r\n"],
    ),
    (
        &[
            "X-Sentry-Auth: Sentry sentry_key={K}, sentry_version=7\r\n",
            "X-Sentry-Auth: Sentry sentry_key={K}, sentry_version=7\r\n",
            "X-Sentry-Auth: Sentry sentry_key={K}, sentry_version=7\r\n",
            "X-Sentry-Auth: Sentry sentry_key={L}, sentry_version=7\r\n",
            "X-Sentry-Auth: Sentry sentry_key={M}, sentry_version=7\r\n",
            "X-Sentry-Auth: Sentry sentry_version=7, sentry_key={K}\r\n",
            "X-Sentry-Auth: Sentry sentry_secret={U}, sentry_key={K}\r\n",
            "X-Sentry-Auth: Sentry sentry_secre_={U}, sentry_key={K}\r\n",
            "x-sentry-auth: Sentry sentry_key={K}, sentry_version=7\r\n",
            "X-Sentry-Auth:  Sentry sentry_key={K}, sentry_version= \r\n",
            "X-Sentry-Auth: Sentry sentry_key={K}, sentry_version=7\n",
            "X-Sentry-Auth: Sentry\tsentry_key={K}, sentry_version=7\r\n",
        ],
        &[
            "X-Sentry-Auti: Sentry sentry_key={K}, sentry_version=7\r\n", "",
            "X-Sentry-Auth: Sentry sentry_key={U}, sentry_version=7\r\n",
            "X-Sentry-Auth: Sentry sentry_key={K}\r\nX-Sentry-Auth: Sentry sentry_key={L}\r\n",
            "X-Sentry-Auth: Sentry sentry_key={K},\r\n sentry_version=7\r\n",
        ],
    ),
    (
        &[
            "", "Authorization: Bearer sentry_key={L}, a=1\r\n",
            "Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZTA6\r\n",
            "Authorization: Basic ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA6\r\n",
        ],
        &["Authorization: Sentry sentry_key={U}, a=1\r\n", "Authorization: Sentry sentry_key={L}, a=1\r\n"],
    ),
    (
        &[
            "", "Content-Type: application/json\r\n", "Content-Type: application/jsom\r\n",
            "Content-Type: application/x-sentry-envelope\r\n", "Content-Type: application/x-sentry-envelopf\r\n",
        ],
        &[],
    ),
    (
        &[
            "", "Content-Encoding: identity\r\n", "Content-Encoding: \r\n", "Content-Encoding: UTF-8\r\n",
        ],
        &[
            "Content-Encoding: identitz\r\n", "Content-Encoding: gzip\r\n", "Content-Encoding: zstd\r\n",
        ],
    ),
    (
        &[
            "", "Expect: 100-continue\r\n", "Expect: 100-continuf\r\n", "Expecu: 100-continue\r\n",
        ],
        &[],
    ),
    (
        &[
            "", "Connection: keep-alive\r\n", "Connection: X-Extra, a\r\n", "Connection: Keep-Alive\r\n",
            "Connection: a, X-Extra\r\n", "Connection: a, b-Extra\r\n", "Connection: x-sentry-auth\r\n",
        ],
        &[
            "Connection: close\r\n", "Connection: keep-alive, close\r\n", "Connection: Close\r\n",
        ],
    ),
    (
        &[
            "", "X-Extra: a\r\n", "X-Extra: b\r\n", "X-Extra:\r\n", "X-Extra:  \r\n", "X-Extra: :\r\n",
            "X-Extra: \u{e9}\r\n", "X-Extra: ab\r\n", "X-Extra: a \r\n", "X-Extra:  a\r\n", "X-Extra: a\tb\r\n",
            "X-Extra: a b\r\n", "X-Extra: a\n", "X-Extra: X-Sentry-Auth: Sentry sentry_key={L}\r\n",
            "X-Extra: X-Sentry-Auth: Sentry sentry_key={M}\r\n", "X-Extra: Content-Length: 1\r\n",
            "X-Extra: a\r\nX-Extra: a\r\n", "X-Extra: a\r\nX-Extrb: a\r\n",
        ],
        &[
            "X-Extra : a\r\n", "X-Extra: a\r\n b\r\n", "X-Extra: a\rb\r\n", "X-Extra: a\0b\r\n",
            "X-Extra: a\u{7f}b\r\n", " X-Extra: a\r\n", "X-Extra: a\r\n: b\r\n", "X-Extra\r\n",
        ],
    ),
    (
        &["", "Cookie: a=1\r\n", "Cookie: a=2\r\n", "Cookif: a=2\r\n"],
        &[],
    ),
    (
        &[
            "", "X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.2\r\n", "X-Forwarded-For: 192.0.2.x\r\n",
            "X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n", "X-Forwarded-For: 198.51.100.7, 127.0.0.1\r\n",
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 127.0.0.1\r\n",
        ],
        &[],
    ),
    (
        &[
            "", "Forwarded: for=192.0.2.1\r\n", "Forwarded: for=192.0.2.2\r\n", "Forwardee: for=192.0.2.2\r\n",
        ],
        &[],
    ),
    (
        &[
            "", "Via: 1.1 {V}\r\n", "Via: 1.1 sentry-mirror-0\r\n", "Vib: 1.1 {V}\r\n", "Via: 1.1 other\r\n",
        ],
        &[],
    ),
    (
        &[
            "", "TE: trailers\r\n", "Te: gzip\r\n", "Trailer: X-Sum\r\n", "Keep-Alive: 1\r\n", "Upgrade: h2c\r\n",
        ],
        &[],
    ),
];

/// The place with most values that need a closer look; it is chosen more often.
pub(super) const EXTRA: usize = 10;

/// What an upstream answers; a request says which one. Most differ little from the first.
#[rustfmt::skip]
pub(super) const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nDate: a\r\nX-Id: a\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: b\r\nX-Id: a\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\ntwo",
    "HTTP/1.1 200 OK\r\nDate: b\r\nX-Id: b\r\nContent-Type: text/a\r\nContent-Length: 4\r\n\r\nfour",
    "HTTP/1.1 200 OK\r\nDate: b\r\nX-Id: b\r\nContent-Type: text/b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 201 OK\r\nDate: b\r\nX-Id: b\r\nContent-Type: text/b\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 400 OK\r\nDate: b\r\nX-Id: b\r\nContent-Type: text/b\r\nContent-Length: 3\r\n\r\nbad",
    "HTTP/1.1 500 OK\r\nDate: b\r\nX-Id: b\r\nContent-Type: text/b\r\nContent-Length: 3\r\n\r\nbad",
    "HTTP/1.1 204 OK\r\nDate: b\r\nX-Id: b\r\nContent-Type: text/b\r\n\r\n",
    "HTTP/1.1 200 OK\r\nDate:\r\nX-Id: \r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: \r\nX-Id:\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate : b\r\nX-Id: b\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: b\nX-Id: b\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: \u{e9}\r\nX-Id: b\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: a\tb\r\nX-Id: Content-Length: 1\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: a b\r\nX-Id: Content-Length: 1\r\nContent-Type: text/a\r\nContent-Length: 4\r\n\r\nfour",
    "HTTP/1.1 200 OK\r\nDate: a b\r\nContent-Lengti: 1\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: a b\r\nX-Id: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nDate: a c\r\nX-Id: b\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\nX-Sum: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nDate: a c\r\nX-Id: b\r\nTransfer-Encodinh: chunked\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: a c\r\nX-Id: b\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 200 OK\r\nDate: a c\r\nX-Id: b\r\nConnection: keep-alivf\r\nContent-Length: 4\r\n\r\nfour",
    "HTTP/1.0 200 OK\r\nDate: a c\r\nX-Id: b\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 100 OK\r\n\r\nHTTP/1.1 200 OK\r\nDate: a\r\nX-Id: a\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 103 OK\r\nDate: a\r\nX-Id: a\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\n\
     HTTP/1.1 200 OK\r\nDate: a\r\nX-Id: a\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\none",
    "HTTP/1.1 413 OK\r\nRetry-After: 1\r\nX-Id: a\r\nContent-Type: text/a\r\nContent-Length: 3\r\n\r\nbig",
];

/// Bodies, and how they are framed: `{length}` stands for the length in the header lines.
#[rustfmt::skip]
pub(super) const BODIES: &[(&str, &str)] = &[
    ("Content-Length: {length}\r\n", "{}"),
    ("Content-Length: {length}\r\n", "[]"),
    (
        "Content-Length: {length}\r\n", "{}\n{\"type\":\"event\"}\n{}\n",
    ),
    (
        "Content-Length: {length}\r\n", "{\"dsn\":\"http://{M}@m/42\"}\n{\"type\":\"event\"}\n{}\n",
    ),
    (
        "Content-Length: {length}\r\n", "{\"dsn\":\"http://{L}@m/42\"}\n{\"type\":\"event\"}\n{}\n",
    ),
    (
        "Content-Length: {length}\r\n", "POST /api/42/store/?sentry_key={K} HTTP/1.1\r\n\r\n",
    ),
    ("Content-Length: 0{length}\r\n", "{}"),
    ("content-length:{length} \r\n", "{}"),
    ("Content-Length: {length}\r\nX-Sum: 1\r\n", "{}"),
    ("", ""),
    ("Content-Length: 0\r\n", ""),
    ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
    ("Transfer-Encoding: Chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
    (
        "Transfer-Encoding: chunked\r\n", "2;a\r\n[]\r\n0\r\nX-Sentry-Auth: Sentry sentry_key={L}\r\n\r\n",
    ),
    (
        "Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n",
    ),
    ("Content-Length: +{length}\r\n", "{}"),
    (
        "Content-Length: {length}\r\nContent-Length: {length}\r\n", "{}",
    ),
    (
        "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n",
    ),
    ("Transfer-Encoding: chunkee\r\n", "2\r\n{}\r\n0\r\n\r\n"),
];
/// Those from here on are invalid.
pub(super) const INVALID_BODIES: usize = 4;
