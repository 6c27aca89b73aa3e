//! A principal: its record under its id.

use levada_protocol::{
    certificate_name::CertificateName,
    ids::{PrincipalId, PrincipalName},
    permission::Permission,
    request::Quotas,
};
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// A principal, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PrincipalRecord {
    pub(crate) id: u64,
    pub(crate) name: PrincipalName,
    /// In order, each once.
    pub(crate) permissions: Vec<Permission>,
    /// In order, each once, and each of one principal alone.
    pub(crate) certificates: Vec<CertificateName>,
    #[serde(default, skip_serializing_if = "Quotas::is_none")]
    pub(crate) quotas: Quotas,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

impl Record for PrincipalRecord {
    const NAME: &'static str = "principal";
    const TAG: u8 = tag::CATALOGUE_PRINCIPAL;
    type Key = PrincipalId;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    fn record(id: u64, certificates: &[&str]) -> PrincipalRecord {
        PrincipalRecord {
            id,
            name: "shop".parse().unwrap(),
            permissions: vec!["publish orders".parse().unwrap(), Permission::admin()],
            certificates: certificates.iter().map(|name| name.parse().unwrap()).collect(),
            quotas: Quotas::default(),
            created_ms: 7,
            owner: "me".to_owned(),
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let expected = "01 86 a26964 04 a46e616d65 a473686f70 ab7065726d697373696f6e73 92 ae7075626c697368206f7264657273 a561646d696e \
                        ac636572746966696361746573 91 a5646e733a61 aa637265617465645f6d73 07 a56f776e6572 a26d65";
        check::bytes(&PrincipalId(4), &record(4, &["dns:a"]), "06 0000000000000004", expected);
    }

    #[test]
    fn quotas_stand_behind_the_certificates() {
        let quotas = Quotas { requests: 5, ..Quotas::default() };
        let record = PrincipalRecord { quotas, ..record(4, &["dns:a"]) };
        let expected = "01 87 a26964 04 a46e616d65 a473686f70 ab7065726d697373696f6e73 92 ae7075626c697368206f7264657273 a561646d696e \
                        ac636572746966696361746573 91 a5646e733a61 a671756f746173 85 ae7075626c6973685f6576656e7473 00 \
                        ad7075626c6973685f6279746573 00 a87265717565737473 05 ab636f6e6e656374696f6e73 00 \
                        af696e5f666c696768745f6279746573 00 aa637265617465645f6d73 07 a56f776e6572 a26d65";
        check::bytes(&PrincipalId(4), &record, "06 0000000000000004", expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(id in any::<u64>(), names in proptest::collection::vec("dns:[a-z]{1,9}", 0..4)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            check::comes_back(&PrincipalId(id), &record(id, &names));
        }
    }
}
