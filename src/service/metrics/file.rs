//! The page in a file, for the textfile collector of a node exporter.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::Source;
use crate::config::Textfile;
use crate::sys::files;

/// Everybody may read it, the exporter among them: it names nobody.
const MODE: u32 = 0o644;

/// Writes the file as often as it is to be written, for ever. What cannot be written is told once.
pub async fn keep_file(file: Textfile, source: Arc<Source>) -> Infallible {
    let mut ticks = interval(file.every.as_duration());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        // Without a page the file gets old, which is what its readers look at.
        let Some(page) = source.page().await else { continue };
        let path = file.path.clone();
        let written = spawn_blocking(move || files::publish(&path, MODE, page.as_bytes())).await;
        match written {
            Ok(Ok(())) => told = false,
            Ok(Err(error)) if !told => {
                told = true;
                tracing::error!(file = %file.path.display(), %error, "figures are not written: trying again");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
