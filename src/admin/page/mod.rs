//! The status page: a single document that loads nothing but the status, put together at build time.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

macro_rules! style {
    () => {
        concat!("\n", include_str!("style.css"))
    };
}

// The files share one scope, and each uses only those before it.
macro_rules! script {
    () => {
        concat!(
            "\n",
            include_str!("format.js"),
            include_str!("judge.js"),
            include_str!("picture.js"),
            include_str!("detail.js"),
            include_str!("table.js"),
            include_str!("main.js"),
        )
    };
}

/// The whole page.
pub(super) const STATUS_PAGE: &str = concat!(
    include_str!("head.html"),
    "<style>",
    style!(),
    "</style>\n",
    include_str!("body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n",
);

/// The `Content-Security-Policy` of the page: a browser runs its own script and style and nothing else, and connects
/// to nothing but the admin port.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    // CSP Level 3, section 2.3.1: the hash of what stands between the tags, byte by byte.
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'",
        hash(style!()),
        hash(script!())
    )
});
