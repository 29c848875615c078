//! Waiting with an end to it: for what must come about, and never for a time.

use std::time::Duration;

/// Far more than anything takes, on a busy machine too; a test that needs it all has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes of something; fails the test where it never ends.
pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("an end in time")
}

/// Asks again and again, for what announces itself to nobody; fails the test where the answer stays no.
pub async fn until(mut condition: impl AsyncFnMut() -> bool) {
    in_time(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
