output "arn" {
  description = "ARN of the endpoint."
  value       = aws_sagemaker_endpoint.this.arn
}

output "endpoint_config_name" {
  description = "Name of the endpoint configuration in service."
  value       = aws_sagemaker_endpoint.this.endpoint_config_name
}

output "model_name" {
  description = "Name of the SageMaker model in service."
  value       = aws_sagemaker_model.this.name
}

output "name" {
  description = "Name of the endpoint."
  value       = aws_sagemaker_endpoint.this.name
}

output "variant_name" {
  description = "Name of the production variant."
  value       = var.variant_name
}
