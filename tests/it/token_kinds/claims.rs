//! `required_claims`: who may use a route, by what the login told about them.

use serde_json::json;

use super::assert_forbidden;
use crate::support::shop::Shop;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_route_is_for_those_of_whom_the_login_has_told_each_claim() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "files").unwrap();
    let folder = folder.path().display().to_string();
    let url = upstream.url();
    let shop = Shop::open_with(|_, setup| {
        for (path, claims) in [
            ("/staff", "{groups: staff}"),
            ("/either", "{groups: [admins, staff], email_verified: true}"),
            ("/level", "{level: 3}"),
            ("/anonymous", "{}"),
        ] {
            setup.add_route(&format!("path: {path}, upstream: \"{url}\", required_claims: {claims}"));
        }
        setup.add_route(&format!(
            "path: /pages, files: \"{folder}\", auth: required, required_claims: {{groups: staff}}"
        ));
    })
    .await;
    for (claims, allowed) in [
        (json!({}), vec!["/anonymous"]),
        (json!({"groups": "staff"}), vec!["/staff", "/pages/", "/anonymous"]),
        (json!({"groups": ["guests"], "level": 3}), vec!["/level", "/anonymous"]),
        (
            json!({"groups": ["guests", "staff"], "email_verified": true, "level": "3"}),
            vec!["/staff", "/either", "/pages/", "/anonymous"],
        ),
        (json!({"groups": ["admins"], "email_verified": true}), vec!["/either", "/anonymous"]),
        (json!({"groups": ["admins"], "email_verified": false}), vec!["/anonymous"]),
    ] {
        let mut user = json!({"sub": "alice"});
        user.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        shop.issuer.behave(|behaviour| behaviour.user = user);
        let mut browser = shop.user().await;
        for path in ["/staff", "/either", "/level", "/pages/", "/anonymous"] {
            let answer = browser.fetch(path).await;
            if allowed.contains(&path) {
                assert_eq!(answer.status, 200, "{path} {claims}");
            } else {
                assert_forbidden(&answer);
                let told = answer.text();
                assert!(!told.contains("staff") && !told.contains("groups"), "{told}");
            }
        }
    }
}
