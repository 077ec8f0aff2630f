//! The journal: where everything that the programs have to say goes, with fields named
//! `CONSOLE_PROXY_*`; standard error where there is no journal.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends what is logged to the journal under this name. Call it once, first.
pub fn init(identifier: &str) {
    start(tracing_journald::layer().ok(), identifier);
}

/// Sends what is logged to standard error, for a service that a person runs by hand. Instead of [`init`].
pub fn init_by_hand() {
    start(None, "");
}

fn start(journal: Option<tracing_journald::Layer>, identifier: &str) {
    let level =
        std::env::var("CONSOLE_PROXY_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let journal = journal.map(|layer| {
        layer.with_syslog_identifier(identifier.to_owned()).with_field_prefix(Some("CONSOLE_PROXY".to_owned()))
    });
    let plain = journal
        .is_none()
        .then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).without_time());
    let _ = tracing_subscriber::registry().with(journal.with_filter(level)).with(plain.with_filter(level)).try_init();
}
