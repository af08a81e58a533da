//! The status page: a single document that loads nothing but the status, put together at build time.

/// The whole page. Its scripts share one scope, and each uses only those before it.
pub(super) const STATUS_PAGE: &str = concat!(
    include_str!("head.html"),
    "<style>\n",
    include_str!("style.css"),
    "</style>\n",
    include_str!("body.html"),
    "<script>\n",
    include_str!("format.js"),
    include_str!("judge.js"),
    include_str!("picture.js"),
    include_str!("detail.js"),
    include_str!("table.js"),
    include_str!("main.js"),
    "</script>\n</body>\n</html>\n",
);
