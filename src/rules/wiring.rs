//! Stand-in until the wiring branch lands.

use super::config::Config;
use super::ports::Slot;

/// Replaces the ports of our own devices by those of this host's slot.
pub fn filter(_text: &str, _config: &Config, _slot: Slot) -> Result<Option<String>, super::xml::BadXml> {
    Ok(None)
}
