//! What operators ask, at the edge.

use claviger::proto::v1::{self, operations_service_client::OperationsServiceClient, rotate_key_request::Target};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    recorded::Recorded,
    rig::{Rig, reason, with_metadata},
};

impl Rig {
    fn operations(&self) -> OperationsServiceClient<Recorded> {
        OperationsServiceClient::new(self.channel())
    }
}

/// When the store is gone is when an operator asks; nobody else is told more than that.
#[tokio::test]
async fn the_status_is_told_when_the_store_is_not_available() {
    let rig = Rig::start().await;
    let before = rig.operations().get_status(rig.by_alice(v1::GetStatusRequest {})).await.unwrap().into_inner();
    assert!(before.ready && before.store.unwrap().available && !before.root_key_id.is_empty());
    rig.store.close().await;
    let status = rig.operations().get_status(rig.by_alice(v1::GetStatusRequest {})).await.unwrap().into_inner();
    assert!(!status.ready && !status.store.unwrap().available && status.root_key_id.is_empty());
    let bob = with_metadata(v1::GetStatusRequest {}, &[("authorization", &rig.bearer("bob"))]);
    assert_eq!(reason(&rig.operations().get_status(bob).await.unwrap_err()), "ROLE_MISSING");
    let backup = rig.operations().create_backup(rig.by_alice(v1::CreateBackupRequest {})).await;
    assert_eq!(reason(&backup.map(drop).unwrap_err()), "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn the_operations_service_names_the_bad_field() {
    let rig = Rig::start().await;
    for (target, field) in [
        (None, "target"),
        (Some(Target::Root(false)), "root"),
        (Some(Target::AllTenants(false)), "all_tenants"),
        (Some(Target::Tenant("Not A Tenant".to_owned())), "tenant"),
    ] {
        let request = rig.by_alice(v1::RotateKeyRequest { target });
        let refused = rig.operations().rotate_key(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    for key_id in [String::new(), "con_00112233445566778899aabbccddeeff".to_owned()] {
        let refused = rig.operations().retire_key(rig.by_alice(v1::RetireKeyRequest { key_id })).await.unwrap_err();
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, "key_id");
    }
}
