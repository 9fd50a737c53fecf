-- Add rows to the audit, as record_audit_v1 does.
select sluice.record_audit_v1(r) from unnest($1::json[]) r
