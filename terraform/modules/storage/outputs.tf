output "artifact_bucket" {
  description = "Name of the bucket of data sets, code, releases and training output."
  value       = aws_s3_bucket.artifacts.id

  # Nobody writes before encryption, versioning and the TLS-only policy are in force.
  depends_on = [
    aws_s3_bucket_ownership_controls.artifacts,
    aws_s3_bucket_policy.artifacts,
    aws_s3_bucket_public_access_block.artifacts,
    aws_s3_bucket_server_side_encryption_configuration.artifacts,
    aws_s3_bucket_versioning.artifacts,
  ]
}

output "artifact_bucket_arn" {
  description = "ARN of the artifact bucket."
  value       = local.artifacts_arn
}

output "kms_key_arn" {
  description = "ARN of the key everything is encrypted with."
  value       = aws_kms_key.this.arn
}

output "log_bucket" {
  description = "Name of the bucket that receives the artifact bucket's access logs."
  value       = aws_s3_bucket.logs.id
}
