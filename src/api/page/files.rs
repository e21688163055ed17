//! The files of `assets/page`, which are part of the binary.

use std::fmt::Write;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file of the page.
pub(super) struct File {
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) bytes: &'static [u8],
    /// Changes with the bytes.
    pub(super) tag: String,
}

macro_rules! embedded {
    ($($path:literal)*) => {
        [$(($path, include_bytes!(concat!("../../../assets/page/", $path)).as_slice())),*]
    };
}

/// All of them but the README of the vendored libraries. A test holds this list against the folder.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let files = embedded![
        "css/base.css"
        "css/chat.css"
        "css/frame.css"
        "css/machine.css"
        "icon.svg"
        "index.html"
        "js/api.js"
        "js/chat/answer.js"
        "js/chat/calls.js"
        "js/chat/composer.js"
        "js/chat/examples.js"
        "js/chat/markdown.js"
        "js/chat/message.js"
        "js/chat/options.js"
        "js/chat/reasoning.js"
        "js/chat/request.js"
        "js/chat/runs.js"
        "js/chat/tries.js"
        "js/chat/view.js"
        "js/dialogs.js"
        "js/files.js"
        "js/format.js"
        "js/history.js"
        "js/icons.js"
        "js/lib.js"
        "js/machine/chart.js"
        "js/machine/experts.js"
        "js/machine/heatmap.js"
        "js/machine/memory.js"
        "js/machine/models.js"
        "js/machine/sampler.js"
        "js/machine/view.js"
        "js/main.js"
        "js/models.js"
        "js/settings.js"
        "js/sse.js"
        "js/store.js"
        "js/theme.js"
        "js/tree.js"
        "js/trouble.js"
        "vendor/dompurify.LICENSE"
        "vendor/dompurify.js"
        "vendor/htm.LICENSE"
        "vendor/marked.LICENSE"
        "vendor/marked.js"
        "vendor/preact-htm.js"
        "vendor/preact.LICENSE"
        "vendor/signals-core.LICENSE"
        "vendor/signals-core.js"
    ];
    files.into_iter().map(File::new).collect()
});

/// The file at this path below `assets/page`.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

impl File {
    fn new((path, bytes): (&'static str, &'static [u8])) -> Self {
        let mut tag = String::new();
        for byte in &Sha256::digest(bytes)[..12] {
            // Writing to a text cannot fail.
            let _ = write!(tag, "{byte:02x}");
        }
        Self {
            path,
            content_type: content_type(path),
            bytes,
            tag,
        }
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
