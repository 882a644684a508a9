use tonic::{Request, Response, Status};

use super::{
    fields::{self, InvalidField, invalid},
    service::{Rpcs, received, refused},
};
use crate::{
    domain::{AppliedReport, ApplyOutcome, CredentialId},
    proto::v1,
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::ReportAppliedRequest>,
) -> Result<Response<v1::ReportAppliedResponse>, Status> {
    let (call, request) = received(request)?;
    let (credential, report) = parse(&request)?;
    let recorded = rpcs.broker.report_applied(&call, credential, &report).await.map_err(refused(&call))?;
    Ok(Response::new(v1::ReportAppliedResponse { recorded }))
}

fn parse(request: &v1::ReportAppliedRequest) -> Result<(CredentialId, AppliedReport), InvalidField> {
    let credential = fields::id("credential_id", &request.credential_id)?;
    if request.generation == 0 {
        return invalid("generation", "is required");
    }
    let outcome = match fields::enumeration("outcome", request.outcome)? {
        v1::ApplyOutcome::Unspecified => return invalid("outcome", "is required"),
        v1::ApplyOutcome::Applied => ApplyOutcome::Applied,
        v1::ApplyOutcome::Failed => ApplyOutcome::Failed,
        v1::ApplyOutcome::Removed => ApplyOutcome::Removed,
    };
    let holder = fields::holder("holder", &request.holder)?;
    Ok((credential, AppliedReport { holder, generation: request.generation, outcome }))
}
