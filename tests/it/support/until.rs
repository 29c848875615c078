//! Waiting for what happens elsewhere and announces itself to nobody.

use std::time::Duration;

/// Far more than anything takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again, and fails the test where the answer stays no.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"));
}
