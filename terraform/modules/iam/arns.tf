# ARNs from names alone: every policy is known, and can be read and scanned, before anything exists.
#
# No role's policy speaks of KMS. The key's own policy (module storage) names the roles, and in one account that is
# enough: one place says who may decrypt.

locals {
  bucket_arn = "arn:${var.partition}:s3:::${var.artifact_bucket}"

  autoscaling_arn = "arn:${var.partition}:autoscaling:${var.region}:${var.account_id}"
  cloudwatch_arn  = "arn:${var.partition}:cloudwatch:${var.region}:${var.account_id}"
  ec2_arn         = "arn:${var.partition}:ec2:${var.region}:${var.account_id}"
  ecr_arn         = "arn:${var.partition}:ecr:${var.region}:${var.account_id}"
  iam_arn         = "arn:${var.partition}:iam::${var.account_id}"
  lambda_arn      = "arn:${var.partition}:lambda:${var.region}:${var.account_id}"
  logs_arn        = "arn:${var.partition}:logs:${var.region}:${var.account_id}"
  sagemaker_arn   = "arn:${var.partition}:sagemaker:${var.region}:${var.account_id}"
  sqs_arn         = "arn:${var.partition}:sqs:${var.region}:${var.account_id}"

  image_uris = { hosting = var.hosting_image_uri, training = var.training_image_uri }

  # account.dkr.ecr.region.amazonaws.com[.cn]/repository[:tag|@digest]
  repository_arns = {
    for workload, uri in local.image_uris : workload => uri == null ? "arn:${var.partition}:ecr:${var.region}:*:repository/*" : format(
      "arn:${var.partition}:ecr:%s:%s:repository/%s",
      regex("^[0-9]{12}\\.dkr\\.ecr\\.([a-z0-9-]+)\\.", uri)[0],
      regex("^[0-9]{12}", uri),
      regex("^[^/]+/([^:@]+)", uri)[0],
    )
  }
}
