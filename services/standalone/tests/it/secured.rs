use grey_testkit::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::grey::{DEADLINE, Grey, file, run};

/// A token and its SHA-256.
const TOKEN: (&str, &str) =
    ("correct horse", "4104d36f8da2c254349f85836793ebe029e0c957063a34c91c2e9203187b5631");

#[tokio::test]
async fn tokens_are_asked_for_and_name_the_actor() {
    let dir = tempfile::tempdir().unwrap();
    let (token, sha256) = TOKEN;
    let text = format!("[access]\ntokens = [{{ name = \"ann\", role = \"admin\", sha256 = \"{sha256}\" }}]");
    let config = file(dir.path(), "grey.toml", &text);
    let grey = Grey::start_with(&["--config", config.to_str().unwrap()], &[]).await;
    grey.run(&["tenant", "list"]).await.refused(1, "UNAUTHENTICATED");
    let args = ["tenant", "put", "acme", "--control", &grey.control];
    run(&args, &[("GREY_TOKEN", "wrong")], "").await.refused(1, "UNAUTHENTICATED");
    run(&args, &[("GREY_TOKEN", token)], "").await.ok();
    let events = grey.json(&["events", "--token", token]).await;
    assert_eq!(events["events"][0]["principal"]["id"], "ann", "{events}");
    assert!(!grey.process.output().contains(token));
}

#[tokio::test]
async fn tls_is_spoken_with_the_authority_given_and_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (cert, key) = ours.server();
    let (cert, key) = (file(dir.path(), "tls.crt", &cert), file(dir.path(), "tls.key", &key));
    let text = format!("[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n", cert.display(), key.display());
    let config = file(dir.path(), "grey.toml", &text);
    let ca = file(dir.path(), "ca.crt", &ours.certificate());
    let foreign = file(dir.path(), "foreign.crt", &Authority::new().certificate());
    let grey = Grey::start_with(&["--config", config.to_str().unwrap()], &[]).await;
    assert!(grey.control.starts_with("https://"), "{}", grey.control);
    let ca = ca.to_str().unwrap();
    eventually(DEADLINE, "the router announces itself", async || {
        grey.run(&["routers", "--ca", ca]).await.ok().out.contains("127.0.0.1")
    })
    .await;
    grey.run(&["route", "a", "b", "--ca", ca]).await.refused(1, "UNKNOWN_SERVICE");
    grey.run(&["routers"]).await.refused(1, "--ca");
    grey.run(&["routers", "--ca", foreign.to_str().unwrap()]).await.refused(1, "certificate");
    let plain = grey.control.replace("https", "http");
    run(&["routers", "--control", &plain, "--timeout", "5s"], &[], "").await.refused(1, "UNAVAILABLE");
}

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate and its key.
    fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
