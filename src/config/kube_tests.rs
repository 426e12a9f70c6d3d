//! Tests of the Kubernetes section.

use std::collections::BTreeMap;

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let base = [(NAMESPACE, "apps"), (HEALTH_NAMESPACE, "health")];
    base.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    let env = map(pairs);
    let mut reader = Reader::new(&env);
    read(&mut reader, "test", true);
    reader.into_problems().into_iter().map(|problem| problem.setting).collect()
}

#[test]
fn defaults_are_the_predecessors_names() {
    let env = map(&[("PY_ENV", "production")]);
    let mut reader = Reader::new(&env);
    let settings = read(&mut reader, "dev", true);
    assert_eq!(reader.into_problems(), []);
    assert_eq!(settings.access, KubeAccess::InCluster);
    assert_eq!(settings.record_name, "switchover-state-dev");
    assert_eq!(settings.record_selector, "app=switchover,name=switchover-config,env=dev");
    assert_eq!(settings.health_pdb, "bcgov-health-api-dev-generic-api-pdb");
    assert_eq!(settings.tekton_namespace, "apps");
    assert_eq!(settings.timeout, Duration::from_secs(10));
}

#[test]
fn names_that_could_leave_their_path_segment_are_problems() {
    assert_eq!(
        problems(&[
            (GATEWAY_DEPLOYMENT, "a/../b"),
            (RECORD_NAME, "Upper"),
            (TEKTON_NAMESPACE, "a.b"),
            (DATABASE_CONFIG, "-x")
        ]),
        [TEKTON_NAMESPACE, RECORD_NAME, GATEWAY_DEPLOYMENT, DATABASE_CONFIG]
    );
}

#[test]
fn selectors_are_checked() {
    for bad in ["app=a,,env=b", "app=a&watch=true", "=x", "a=b=c=d", "a in (b"] {
        assert_eq!(problems(&[(DATABASE_SELECTOR, bad)]), [DATABASE_SELECTOR], "{bad}");
    }
    for good in ["app=a", "a.b/c=d,e!=f", "tier in (x,y)", "!gone", "present"] {
        assert_eq!(problems(&[(DATABASE_SELECTOR, good)]), [""; 0], "{good}");
    }
}

#[test]
fn a_password_in_the_url_is_refused_and_not_shown() {
    let env = map(&[(API_URL, "http://me:hunter2@host/k8s")]);
    let mut reader = Reader::new(&env);
    read(&mut reader, "dev", true);
    let shown = format!("{:?}", reader.into_problems());
    assert!(shown.contains(API_URL) && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_pod_s_service_account_is_used_unless_something_else_is_named() {
    let access = |pairs: &[(&str, &str)]| {
        let env = map(pairs);
        read(&mut Reader::new(&env), "dev", true).access
    };
    let pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    assert_eq!(access(&[pod]), KubeAccess::InCluster);
    assert_eq!(access(&[pod, ("PY_ENV", "development")]), KubeAccess::Kubeconfig(vec![]));
    assert_eq!(access(&[pod, ("KUBECONFIG", "/k")]), KubeAccess::Kubeconfig(vec!["/k".to_owned()]));
    assert_eq!(access(&[]), KubeAccess::Kubeconfig(vec![]));
}
