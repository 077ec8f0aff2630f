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
    let plain = journal.is_none().then(|| by_hand(std::io::stderr));
    let _ = tracing_subscriber::registry().with(journal.with_filter(level)).with(plain.with_filter(level)).try_init();
}

/// As text: the message and then the fields, without a clock, which whoever keeps the text has.
fn by_hand<S, W>(writer: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + 'static,
{
    tracing_subscriber::fmt::layer().with_writer(writer).with_target(false).without_time()
}

/// What is logged from here on, by this thread and for as long as the guard lives, as it is printed by hand.
#[cfg(test)]
pub(crate) fn kept() -> (tracing::subscriber::DefaultGuard, impl Fn() -> Vec<String>) {
    // One that hears everything and keeps nothing, for all threads: a place in the code that is first passed in a thread
    // where nobody listens would be taken for one that never needs to say anything.
    static EVERYWHERE: std::sync::Once = std::sync::Once::new();
    EVERYWHERE.call_once(|| {
        let deaf = by_hand(std::io::sink).with_filter(LevelFilter::TRACE);
        let _ = tracing_subscriber::registry().with(deaf).try_init();
    });
    let text = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let layer = by_hand(Sink(text.clone())).with_filter(LevelFilter::INFO);
    let guard = tracing_subscriber::registry().with(layer).set_default();
    let lines = move || String::from_utf8_lossy(&text.lock().unwrap()).lines().map(str::to_owned).collect();
    (guard, lines)
}

/// A text that grows.
#[cfg(test)]
#[derive(Clone)]
struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Sink {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
