output "artifact_bucket" {
  description = "Bucket of data sets, training code, releases and training output."
  value       = module.storage.artifact_bucket
}

output "autoscaling_group_name" {
  description = "The EC2 trainer's group: set its desired capacity to 1 and it trains once."
  value       = module.trainer.autoscaling_group_name
}

output "endpoint_name" {
  description = "The SageMaker endpoint; null before the first release."
  value       = one(module.endpoint[*].name)
}

output "function_alias" {
  description = "The Lambda alias to invoke; null before the first release."
  value       = one(module.lambda[*].alias_name)
}

output "function_name" {
  description = "The Lambda function; null before the first release."
  value       = one(module.lambda[*].function_name)
}

output "image_build_project" {
  description = "The CodeBuild project that builds the hosting image: `python -m bundle.image --codebuild` starts it."
  value       = module.image.project_name
}

output "image_repository_url" {
  description = "The hosting image's repository: `make image REPOSITORY=...` pushes to it."
  value       = module.image.repository_url
}

output "kms_key_arn" {
  description = "The key everything is encrypted with."
  value       = module.storage.kms_key_arn
}

output "launch_template_id" {
  description = "The EC2 trainer's launch template."
  value       = module.trainer.launch_template_id
}

output "notebook_name" {
  description = "The notebook instance that runs the submission script."
  value       = module.notebook.name
}

output "region" {
  description = "AWS region of the stack."
  value       = var.region
}

output "submission" {
  description = "Settings of model/submit.py and model/hpo.py: `terraform output -json submission > submission.json`."
  value       = local.submission
}

output "topic_arn" {
  description = "Topic that every alarm is sent to."
  value       = module.monitoring.topic_arn
}

output "trainer_log_group" {
  description = "Log group of the EC2 trainer."
  value       = module.trainer.log_group_name
}
